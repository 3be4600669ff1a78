# Sourced by scripts/stack after scripts/servers.sh: Weir's three services as separate processes on the private servers,
# and two sandboxes: one as the tenant's SQL Server, one as the SQL Server of the financial items.

SERVICE_NAMES=(wallet billing sandbox items proxy)
CREDIT=${WEIR_CREDIT:-5.00}     # of the demo's tenant, when it is made

# find_programs: the directory of the built programs; built here when none is named. Kept for `start`.
find_programs() {
    if [ -n "$BIN_DIR" ]; then
        BIN_DIR=$(cd "$CALLED_IN" && realpath -m "$BIN_DIR")
    else
        say "building the services"
        cargo build --release --workspace --locked --bins >&2
        BIN_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/release")
    fi
    local program
    for program in weir-wallet weir-billing weir-proxy weir-sandbox; do
        if [ ! -x "$BIN_DIR/$program" ]; then say "no $program in $BIN_DIR; build it: cargo build --release --workspace --bins"; return 1; fi
    done
    echo "$BIN_DIR" >"$STACK/bin-dir"
}

# program NAME: its path.
program() { echo "$(cat "$STACK/bin-dir")/$1"; }

# make_certificate: self-signed, for the sandboxes and the proxy; an end entity, because clients take it as their own root.
make_certificate() {
    local tls=$STACK/tls
    if [ -s "$tls/cert.pem" ]; then return 0; fi
    mkdir -p "$tls"
    cat >"$tls/request.cnf" <<'END'
[req]
prompt = no
distinguished_name = name
x509_extensions = leaf
[name]
CN = weir stack
[leaf]
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:FALSE
END
    with_libraries "$OPENSSL" req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -config "$tls/request.cnf" -keyout "$tls/key.pem" -out "$tls/cert.pem.new" 2>"$tls/log" || { cat "$tls/log" >&2; return 1; }
    mv "$tls/cert.pem.new" "$tls/cert.pem"
}

# http METHOD PORT PATH [BODY]: with the token; prints the whole answer, the status line first.
http() {
    local body=${4:-}
    exec 7<>"/dev/tcp/127.0.0.1/$2" || return 1
    printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' \
        "$1" "$3" "$2" "$(cat "$STACK/token")" "${#body}" "$body" >&7
    timeout 30 cat <&7
    exec 7>&-
}
accepted() { [[ $1 == HTTP/1.1\ 2* ]]; }

# Services read no variable but what stands in their file; a path for each address, so that no secret is in two places.
run_service() { launch "$1" "$(program "weir-$1")" "${@:2}"; }

prepare_wallet() {
    local home=$STACK/wallet
    if [ ! -s "$home/grpc-port" ]; then free_port wallet >/dev/null; mv "$home/port" "$home/grpc-port"; fi
    url_postgres wallet >"$home/database-url"
    cat >"$home/config.toml" <<END
data_dir = "$home/data"
rest_listen = "127.0.0.1:$(free_port wallet)"
grpc_listen = "127.0.0.1:$(cat "$home/grpc-port")"
token_file = "$STACK/token"
amqp_url = "file:$STACK/rabbitmq/url"
database_url = "file:$home/database-url"
mongodb_url = "file:$STACK/ferretdb/url"
END
}
start_wallet() { run_service wallet run --config "$STACK/wallet/config.toml"; }
ready_wallet() { listens "$(cat "$STACK/wallet/grpc-port")" && accepted "$(http GET "$(cat "$STACK/wallet/port")" /ready)"; }
url_wallet() { echo "http://127.0.0.1:$(cat "$STACK/wallet/port")"; }

prepare_billing() {
    local home=$STACK/billing
    if [ ! -s "$home/grpc-port" ]; then free_port billing >/dev/null; mv "$home/port" "$home/grpc-port"; fi
    url_postgres billing >"$home/database-url"
    cat >"$home/config.toml" <<END
data_dir = "$home/data"
rest_listen = "127.0.0.1:$(free_port billing)"
grpc_listen = "127.0.0.1:$(cat "$home/grpc-port")"
token_file = "$STACK/token"
wallet_url = "http://127.0.0.1:$(cat "$STACK/wallet/grpc-port")"
wallet_rest_url = "http://127.0.0.1:$(cat "$STACK/wallet/port")"
redis_url = "file:$STACK/redis/url"
amqp_url = "file:$STACK/rabbitmq/url"
database_url = "file:$home/database-url"
items_url = "file:$STACK/items/url"
END
}
start_billing() { run_service billing run --config "$STACK/billing/config.toml"; }
ready_billing() { listens "$(cat "$STACK/billing/grpc-port")" && accepted "$(http GET "$(cat "$STACK/billing/port")" /ready)"; }
url_billing() { echo "http://127.0.0.1:$(cat "$STACK/billing/port")"; }

start_a_sandbox() {
    launch "$1" "$(program weir-sandbox)" --listen "127.0.0.1:$(cat "$STACK/$1/port")" --data-dir "$STACK/$1/data" \
        --tls-cert "$STACK/tls/cert.pem" --tls-key "$STACK/tls/key.pem"
}
prepare_sandbox() { free_port sandbox >/dev/null && make_certificate; }
start_sandbox() { start_a_sandbox sandbox; }
ready_sandbox() { listens "$(cat "$STACK/sandbox/port")"; }
url_sandbox() { echo "mssql://demo:demo@127.0.0.1:$(cat "$STACK/sandbox/port")/demo?encrypt=required&ca=$STACK/tls/cert.pem"; }
prepare_items() { free_port items >/dev/null && make_certificate; }
start_items() { start_a_sandbox items; }
ready_items() { listens "$(cat "$STACK/items/port")"; }
url_items() { echo "mssql://demo:demo@127.0.0.1:$(cat "$STACK/items/port")/demo?encrypt=required&ca=$STACK/tls/cert.pem"; }

prepare_proxy() {
    local home=$STACK/proxy
    cat >"$home/config.toml" <<END
listen = "127.0.0.1:$(free_port proxy)"
upstream = "127.0.0.1:$(cat "$STACK/sandbox/port")"
upstream_ca = "$STACK/tls/cert.pem"
tls_cert = "$STACK/tls/cert.pem"
tls_key = "$STACK/tls/key.pem"
data_dir = "$home/data"
billing_url = "http://127.0.0.1:$(cat "$STACK/billing/grpc-port")"
token_file = "$STACK/token"
redis_url = "file:$STACK/redis/url"
END
}
start_proxy() { run_service proxy run --config "$STACK/proxy/config.toml"; }
ready_proxy() { listens "$(cat "$STACK/proxy/port")"; }
url_proxy() { echo "127.0.0.1:$(cat "$STACK/proxy/port")"; }

# make_tenant: as `weir demo` makes it: login demo, 0.000010 USD per row delivered, enforced.
make_tenant() {
    local port answer
    port=$(cat "$STACK/billing/port")
    answer=$(http GET "$port" /api/accounts/demo)
    if accepted "$answer"; then return 0; fi
    answer=$(http PUT "$port" /api/tariffs/demo@1 '{"currency":"USD","per_row":"0.000010"}')
    if ! accepted "$answer"; then say "the tariff was refused: $(tail -n 1 <<<"$answer")"; return 1; fi
    answer=$(http POST "$port" /api/accounts \
        "{\"account\":\"demo\",\"login\":\"demo\",\"currency\":\"USD\",\"initial_credit\":\"$CREDIT\",\"tariff\":\"demo@1\",\"mode\":\"enforce\"}")
    if ! accepted "$answer"; then say "the tenant was refused: $(tail -n 1 <<<"$answer")"; return 1; fi
}

# start_services: the order in which they need each other; the servers run already.
start_services() {
    secret "$STACK/token" >/dev/null
    local name
    for name in "${SERVICE_NAMES[@]}"; do mkdir -p "$STACK/$name"; done
    for name in sandbox items wallet billing; do start_server "$name"; done
    make_tenant
    start_server proxy
}

service_lines() {
    cat <<END
WEIR_TDS=$(url_proxy)
WEIR_SERVER=$(url_billing)
WEIR_TOKEN_FILE=$STACK/token
WEIR_WALLET_REST_URL=$(url_wallet)
WEIR_ITEMS_URL=$(url_items)
WEIR_TLS_CERT=$STACK/tls/cert.pem
END
}
