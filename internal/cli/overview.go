package cli

import "context"

// overview is what `unstuck` alone prints.
func (d *door) overview(ctx context.Context) error { return d.authStatus(ctx) }
