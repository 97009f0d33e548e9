// Command unstuck is the whole product: the server, and the command line that speaks to it.
package main

import (
	"os"

	"unstuck/internal/cli"
)

func main() { os.Exit(cli.Main()) }
