#!/usr/bin/env bash
# Holds the OpenAPI document of a running server against two validators, and the server against its document.
#
#   URL=http://127.0.0.1:8080 KEY=unstuck_… test/openapi.sh [further options of schemathesis run]
#
# The calls are made with KEY and change what it may change: use a server that can be thrown away, and leave out, by
# --exclude-operation-id, what would end the key itself. EXAMPLES (50) is the number of calls tried per operation. What is
# missing is installed into .cache/openapi at the root of the repository, for which npm and python3 are needed.
set -euo pipefail
: "${URL:?the address of the server, without a path}" "${KEY:?a key of that server}"
cd "$(dirname "$0")/.."
tools=$PWD/.cache/openapi config=$PWD/test/schemathesis.toml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

redocly=$tools/npm/node_modules/.bin/redocly
if ! [[ -x $redocly ]]; then # newer versions do not install
	npm install --silent --no-audit --no-fund --prefix "$tools/npm" @redocly/cli@2.73.0
fi
if ! [[ -x $tools/venv/bin/schemathesis && -x $tools/venv/bin/openapi-spec-validator ]]; then
	python3 -m venv "$tools/venv"
	"$tools/venv/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5 openapi-spec-validator==0.9.0
fi

cd "$work"
curl --fail --silent --show-error "$URL/openapi.json" >openapi.json
echo "--- openapi-spec-validator"
"$tools/venv/bin/openapi-spec-validator" openapi.json
echo "--- redocly"
REDOCLY_TELEMETRY=off "$redocly" lint --extends=spec openapi.json
echo "--- schemathesis"
# Left out: negative_data_rejection, because "3" for 3 and the like are accepted on purpose (CueAPI wire contract 1.3);
# positive_data_acceptance, because a schema cannot say that a cursor must be one of ours or that null would widen a key;
# ignored_auth and missing_required_header, because strangers get 429 after 60 calls a minute (TestHelpUnauthenticated looks at 401);
# and NUL characters, which are refused everywhere and which no schema mentions.
left_out=negative_data_rejection,positive_data_acceptance,ignored_auth,missing_required_header
KEY=$KEY "$tools/venv/bin/schemathesis" --config-file "$config" run "$URL/openapi.json" --max-examples "${EXAMPLES:-50}" --seed 1 \
	--exclude-checks $left_out --request-timeout 40 --generation-allow-x00 false --generation-database none --no-color "$@"
