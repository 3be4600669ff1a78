# Sourced by scripts/stack and scripts/test: the real servers, installed privately and run privately. Nothing of the
# system is changed and no service of it is touched: packages are only unpacked below $SERVERS, every server has its own
# data directory below $STACK, a free port on loopback and a random password.

SERVERS=${WEIR_SERVERS:-$PWD/.weir/servers}     # binaries, shared by all stacks of this checkout
SERVER_NAMES=(postgres redis rabbitmq ferretdb)
READY_SECONDS=90                                # worst seen: 34 s for RabbitMQ beside builds on two cores

say() { printf 'stack: %s\n' "$*" >&2; }

# ── Installation ─────────────────────────────────────────────────────────────────────────────────────────────────────

# first_of PATTERN…: the newest existing match of the first pattern that has one.
first_of() {
    local pattern found
    for pattern in "$@"; do
        found=$(compgen -G "$pattern" | sort -V | tail -n 1)
        if [ -n "$found" ]; then echo "$found"; return 0; fi
    done
    return 1
}

# find_servers: sets the paths of what is there, the private prefix first. An installed server lends its files only.
find_servers() {
    local root=$SERVERS/root
    REDIS_SERVER=$(first_of "$root/usr/bin/redis-server" || command -v redis-server || true)
    PG_BIN=$(dirname "$(first_of "$root/usr/lib/postgresql/*/bin/initdb" "/usr/lib/postgresql/*/bin/initdb" \
        "/usr/pgsql-*/bin/initdb" || command -v initdb || echo ./-)")
    RABBIT_SBIN=$(dirname "$(first_of "$root/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server" \
        "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server" "/opt/rabbitmq*/sbin/rabbitmq-server" || echo ./-)")
    ERL_BIN=$(dirname "$(first_of "$root/usr/lib/erlang/bin/erl" || command -v erl || echo ./-)")
    OPENSSL=$(first_of "$root/usr/bin/openssl" || command -v openssl || true)
    FERRETDB=$SERVERS/ferretdb
    # Only what runs from the prefix needs its libraries; they are of the same release as the system's.
    SERVER_LIBRARIES=$(first_of "$root/usr/lib/*-linux-gnu" || true)
}

# missing_packages: Debian's names of what find_servers did not find.
missing_packages() {
    if [ -z "$REDIS_SERVER" ]; then echo redis-server; fi
    if [ ! -x "$PG_BIN/initdb" ]; then echo postgresql; fi
    if [ ! -x "$RABBIT_SBIN/rabbitmq-server" ] || [ ! -x "$ERL_BIN/erl" ]; then echo rabbitmq-server; fi
    if [ -z "$OPENSSL" ]; then echo openssl; fi
}

# private_apt COMMAND…: apt-get without root. The second attempt has package lists of its own, fetched below the prefix.
private_apt() {
    local own=()
    if [ "$APT_LISTS" = own ]; then own=(-o "Dir::State::lists=$SERVERS/apt/lists" -o "Dir::Cache=$SERVERS/apt/cache"); fi
    apt-get -qq -o APT::Sandbox::User=root -o Debug::NoLocking=true "${own[@]}" "$@"
}

# fetch_packages NAME…: unpack these and what they depend on into the prefix; packages that the system has are left out.
fetch_packages() {
    local closure package
    closure=$(private_apt install -s --no-install-recommends "$@" | awk '/^Inst/ {print $2}') || return 1
    closure=$(grep -vxE 'libc6|libc-bin|locales|tzdata' <<<"$closure") || return 1
    rm -rf "$SERVERS/debs"
    mkdir -p "$SERVERS/debs"
    # shellcheck disable=SC2086  # one word per package
    (cd "$SERVERS/debs" && private_apt download $closure) || return 1
    for package in "$SERVERS"/debs/*.deb; do dpkg -x "$package" "$SERVERS/root" || return 1; done
    rm -rf "$SERVERS/debs"
    # Erlang's start scripts hold the place they were built for.
    local erlang=$SERVERS/root/usr/lib/erlang
    if [ -d "$erlang" ]; then sed -i "s|=/usr/lib/erlang$|=$erlang|" "$erlang/bin/erl" "$erlang/bin/start"; fi
}

install_packages() {
    local missing
    find_servers
    missing=$(missing_packages | paste -sd' ')
    if [ -z "$missing" ]; then say "Redis, RabbitMQ, PostgreSQL: there already"; return 0; fi
    mkdir -p "$SERVERS/root" "$SERVERS/apt/lists/partial" "$SERVERS/apt/cache/archives/partial"
    say "unpacking $missing from Debian below $SERVERS"
    if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
        # shellcheck disable=SC2086
        APT_LISTS=system fetch_packages $missing >"$SERVERS/apt/log" 2>&1 ||
            { APT_LISTS=own private_apt update && APT_LISTS=own fetch_packages $missing; } >>"$SERVERS/apt/log" 2>&1 || true
    fi
    find_servers
    missing=$(missing_packages | paste -sd' ')
    if [ -z "$missing" ]; then say "Redis, RabbitMQ, PostgreSQL: installed"; return 0; fi
    if [ -e "$SERVERS/apt/log" ]; then tail -n 15 "$SERVERS/apt/log" >&2; fi
    say "could not get: $missing. On Debian 12 they come from its archive (is deb.debian.org reachable?);"
    say "elsewhere install them by hand: redis-server, initdb and erl in PATH, RabbitMQ in /opt/rabbitmq (3.10 or newer)."
    return 1
}

# FerretDB speaks MongoDB's protocol. It comes as a Go module; built once for each state of its lock file.
install_ferretdb() {
    local source=protocol-tests/servers/ferretdb stamp
    stamp=$(cat "$source/main.go" "$source/go.mod" "$source/go.sum" | sha256sum)
    if [ -x "$SERVERS/ferretdb" ] && [ "$(cat "$SERVERS/ferretdb.of" 2>/dev/null)" = "$stamp" ]; then
        say "FerretDB: there already"
        return 0
    fi
    mkdir -p "$SERVERS"
    say "building FerretDB from the Go module proxy (a minute)"
    # Its Go files need 1.22; the toolchain at hand is used, none is fetched. The SQLite backend is left out.
    if (cd "$source" && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=0 \
        go build -trimpath -tags ferretdb_no_sqlite -o "$SERVERS/ferretdb.new" .); then
        mv "$SERVERS/ferretdb.new" "$SERVERS/ferretdb"
        echo "$stamp" >"$SERVERS/ferretdb.of"
        say "FerretDB: built"
        return 0
    fi
    say "could not build FerretDB of $source: it needs Go 1.22 or newer in PATH and the Go module proxy (GOPROXY)."
    return 1
}

# install_servers: both parts are tried, so that one run names all that is missing. One installation at a time.
install_servers() {
    mkdir -p "$SERVERS"
    local failed=0
    exec 8>"$SERVERS/lock"
    flock 8
    install_packages || failed=1
    install_ferretdb || failed=1
    exec 8>&-
    return "$failed"
}

# ── Processes ────────────────────────────────────────────────────────────────────────────────────────────────────────

# launch NAME PROGRAM…: in its own session, with its log as its only output and nothing else of the caller open.
launch() {
    local name=$1
    shift
    (
        local fd variable
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
        done
        # Nothing that the caller set for itself may configure what is started.
        for variable in "${!WEIR_@}"; do
            case $variable in WEIR_TEST_RUN | WEIR_CI_RUN | WEIR_LOG) ;; *) unset "$variable" ;; esac
        done
        cd "${LAUNCH_IN:-$STACK/$name}" || exit 1
        export WEIR_STACK=$STACK WEIR_STACK_SERVER=$STACK/$name
        exec setsid "$@" >>"$STACK/$name/log" 2>&1 </dev/null
    ) &
    echo "$!" >"$STACK/$name/pid"
}

# processes_of NAME…: all processes of these servers, their children included. They carry a mark in their environment;
# only PostgreSQL writes its title over it, and is known by its working directory.
processes_of() {
    local name marks=() data=
    for name in "$@"; do
        marks+=(-e "WEIR_STACK_SERVER=$STACK/$name")
        if [ "$name" = postgres ]; then data=$STACK/postgres/data; fi
    done
    {
        grep -lzxF "${marks[@]}" /proc/[0-9]*/environ | cut -d/ -f3
        if [ -n "$data" ]; then
            local process
            for process in $(grep -lx postgres /proc/[0-9]*/comm | cut -d/ -f3); do
                if [ "$(readlink "/proc/$process/cwd")" = "$data" ]; then echo "$process"; fi
            done
        fi
    } 2>/dev/null | sort -u
}

# signal_servers SIGNAL NAME…
signal_servers() {
    local signal=$1 pids
    shift
    pids=$(processes_of "$@")
    # shellcheck disable=SC2086  # one word per process
    if [ -n "$pids" ]; then kill -"$signal" $pids 2>/dev/null || true; fi
}

is_running() { [ -s "$STACK/$1/pid" ] && [ -n "$(processes_of "$1")" ]; }

# end_servers NAME…: TERM, and KILL after 3 seconds. A paused one is resumed first, or it would not hear the TERM.
end_servers() {
    local round
    signal_servers TERM "$@"
    signal_servers CONT "$@"
    for round in $(seq 50); do
        if [ -z "$(processes_of "$@")" ]; then return 0; fi
        if [ "$round" -ge 15 ]; then signal_servers KILL "$@"; fi
        sleep 0.2
    done
    say "does not end: $(processes_of "$@" | paste -sd' ')"
    return 1
}

listens() { (exec 7<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port NAME: chosen once and kept, so that a killed server comes back where its clients look for it. Below the
# range of outgoing connections, so that none of those takes it in between.
free_port() {
    local file=$STACK/$1/port low port
    if [ ! -s "$file" ]; then
        low=$(cut -f1 /proc/sys/net/ipv4/ip_local_port_range 2>/dev/null || echo 32768)
        if [ "$low" -lt 16000 ]; then low=65535; fi
        while port=$((10000 + (RANDOM * 32768 + RANDOM) % (low - 10000))); listens "$port" || used_here "$port"; do :; done
        echo "$port" >"$file"
    fi
    cat "$file"
}

used_here() { cat "$STACK"/*/port "$STACK"/*/*-port 2>/dev/null | grep -qx "$1"; }

# secret FILE: a random one, made once.
secret() {
    if [ ! -s "$1" ]; then od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$1"; fi
    cat "$1"
}

# start_server NAME: start it unless it runs, and wait until it answers.
start_server() {
    local name=$1 began=$SECONDS
    mkdir -p "$STACK/$name"
    if is_running "$name" && "ready_$name" 2>/dev/null; then return 0; fi
    "prepare_$name" || { say "$name could not be prepared:"; tail -n 30 "$STACK/$name/log" >&2; return 1; }
    "start_$name"
    while ! "ready_$name" 2>/dev/null; do
        if ! kill -0 "$(cat "$STACK/$name/pid")" 2>/dev/null; then
            # PostgreSQL, killed, holds its memory until the last of its children has ended.
            if [ "$((SECONDS - began))" -lt 20 ] && [ "$name" = postgres ]; then sleep 0.5; "start_$name"; continue; fi
            say "$name ended while it started; the end of $STACK/$name/log:"
            tail -n 30 "$STACK/$name/log" >&2
            return 1
        fi
        if [ "$((SECONDS - began))" -gt "$READY_SECONDS" ]; then
            say "$name is not ready after $READY_SECONDS s; the end of $STACK/$name/log:"
            tail -n 30 "$STACK/$name/log" >&2
            return 1
        fi
        sleep 0.1
    done
    "url_$name" >"$STACK/$name/url"
    say "$name is ready ($((SECONDS - began)) s)"
}

with_libraries() { env LD_LIBRARY_PATH="$SERVER_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$@"; }

# ── Redis: append-only file, nothing evicted, no snapshots but the file's own rewrites ──────────────────────────────────

prepare_redis() {
    cat >"$STACK/redis/redis.conf" <<END
bind 127.0.0.1
port $(free_port redis)
requirepass $(secret "$STACK/redis/password")
dir $STACK/redis
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
save ""
set-proc-title no
daemonize no
END
    # For tests that need a second one, with settings of their own.
    printf '#!/usr/bin/env bash\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$SERVER_LIBRARIES" "$REDIS_SERVER" >"$STACK/redis/server"
    chmod 700 "$STACK/redis/server"
}
start_redis() { launch redis env LD_LIBRARY_PATH="$SERVER_LIBRARIES" "$REDIS_SERVER" "$STACK/redis/redis.conf"; }
# LOADING is not ready: clients would get errors.
ready_redis() {
    local answer
    exec 7<>"/dev/tcp/127.0.0.1/$(cat "$STACK/redis/port")" || return 1
    printf 'AUTH %s\r\nPING\r\n' "$(cat "$STACK/redis/password")" >&7
    read -r -t 2 answer <&7 && read -r -t 2 answer <&7
    exec 7>&-
    [ "$answer" = $'+PONG\r' ]
}
url_redis() { echo "redis://:$(cat "$STACK/redis/password")@127.0.0.1:$(cat "$STACK/redis/port")/0"; }

# ── RabbitMQ: its own node, its own epmd ────────────────────────────────────────────────────────────────────────────

# rabbit_env PROGRAM…: what both the server and rabbitmqctl are told; nothing of /etc/rabbitmq is read.
rabbit_env() {
    local home=$STACK/rabbitmq
    env PATH="$ERL_BIN:$PATH" LD_LIBRARY_PATH="$SERVER_LIBRARIES" HOME="$home" LANG=C.UTF-8 LC_ALL=C.UTF-8 \
        RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME="$(cat "$home/node")" RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config" RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
        RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$home/logs" RABBITMQ_PID_FILE="$home/node-pid" \
        RABBITMQ_GENERATED_CONFIG_DIR="$home/generated" RABBITMQ_FEATURE_FLAGS_FILE="$home/feature_flags" \
        RABBITMQ_DIST_PORT="$(cat "$home/dist-port")" ERL_EPMD_PORT="$(cat "$STACK/epmd/port")" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false" \
        RABBITMQ_CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false" \
        ERL_CRASH_DUMP="$home/erl_crash.dump" "$@"
}

prepare_rabbitmq() {
    local home=$STACK/rabbitmq
    mkdir -p "$STACK/epmd"
    free_port epmd >/dev/null
    if [ ! -s "$home/dist-port" ]; then
        free_port rabbitmq >/dev/null
        mv "$home/port" "$home/dist-port"
        echo "weir-$(cat "$home/dist-port")@localhost" >"$home/node"
    fi
    cat >"$home/rabbitmq.conf" <<END
listeners.tcp.default = 127.0.0.1:$(free_port rabbitmq)
default_vhost = weir
default_user = weir
default_pass = $(secret "$home/password")
disk_free_limit.absolute = 200MB
vm_memory_high_watermark.absolute = 1GB
log.console = true
log.console.level = info
log.file = false
END
    echo '[].' >"$home/enabled_plugins"
    echo '[].' >"$home/advanced.config"
    rm -f "$home/ctl"
    { printf '#!/usr/bin/env bash\n# rabbitmqctl for this node.\nexec '
      printf '%q ' env -u WEIR_STACK -u WEIR_STACK_SERVER; rabbit_env_words; printf '%q "$@"\n' "$RABBIT_SBIN/rabbitmqctl"; } >"$home/ctl"
    chmod 700 "$home/ctl"
}
# The assignments that rabbit_env makes, as words for a script.
rabbit_env_words() {
    rabbit_env env -0 | grep -zE '^(PATH|HOME|LANG|LC_ALL|LD_LIBRARY_PATH|RABBITMQ_|ERL_)' |
        while IFS= read -r -d '' word; do printf '%q ' "$word"; done
}
start_rabbitmq() {
    if ! listens "$(cat "$STACK/epmd/port")"; then
        launch epmd env LD_LIBRARY_PATH="$SERVER_LIBRARIES" "$ERL_BIN/epmd" -address 127.0.0.1 -port "$(cat "$STACK/epmd/port")"
        local round
        for round in $(seq 50); do
            if listens "$(cat "$STACK/epmd/port")"; then break; fi
            sleep 0.1
        done
    fi
    # As words and not as a function: launch must exec the server itself, so that the pid is the server's.
    local words
    mapfile -d '' -t words < <(rabbit_env env -0 | grep -zE '^(PATH|HOME|LANG|LC_ALL|LD_LIBRARY_PATH|RABBITMQ_|ERL_)')
    launch rabbitmq env "${words[@]}" "$RABBIT_SBIN/rabbitmq-server"
}
# Listeners open last, after the virtual host and the user are there. The greeting shows that it is not only a backlog.
ready_rabbitmq() {
    local answer
    exec 7<>"/dev/tcp/127.0.0.1/$(cat "$STACK/rabbitmq/port")" || return 1
    printf 'AMQP\0\0\11\1' >&7
    IFS= read -r -d '' -t 2 -n 1 answer <&7
    local code=$?
    exec 7>&-
    [ "$code" -le 1 ] && [ -n "$answer" ]
}
url_rabbitmq() { echo "amqp://weir:$(cat "$STACK/rabbitmq/password")@127.0.0.1:$(cat "$STACK/rabbitmq/port")/weir"; }

# ── PostgreSQL: durable, passwords, one role per service ────────────────────────────────────────────────────────────

# PostgreSQL refuses to run as root. As another user where that one can reach the directory, else in a user namespace in
# which root has another number. postgres_user: the words to put before a program; the data's owner says what it was.
postgres_user() {
    if [ "$(id -u)" -ne 0 ]; then return 0; fi
    local other=(setpriv --reuid=65534 --regid=65534 --clear-groups) data=$STACK/postgres/data
    if [ -d "$data" ] && [ "$(stat -c %u "$data")" = 65534 ]; then printf '%s\n' "${other[@]}"
    elif [ ! -d "$data" ] && "${other[@]}" test -x "$STACK/postgres" -a -x "$PG_BIN/postgres" 2>/dev/null; then
        printf '%s\n' "${other[@]}"
    else
        printf '%s\n' unshare --user --map-user=65534 --map-group=65534
    fi
}

prepare_postgres() {
    local home=$STACK/postgres role
    for role in admin owner wallet billing ferretdb; do secret "$home/$role-password" >/dev/null; done
    if [ -e "$home/made" ]; then mapfile -t PG_AS < <(postgres_user); return 0; fi
    rm -rf "$home/data"
    chmod 711 "$home"
    mapfile -t PG_AS < <(postgres_user)
    mkdir "$home/data"
    if [ "${PG_AS[0]:-}" = setpriv ]; then chown 65534:65534 "$home/data" "$home/admin-password"; fi
    (cd "$home/data" && with_libraries "${PG_AS[@]}" "$PG_BIN/initdb" -D "$home/data" -U weir_admin --encoding=UTF8 --locale=C \
        --auth=scram-sha-256 --pwfile="$home/admin-password" --no-instructions) >>"$home/log" 2>&1 || return 1
    cat >>"$home/data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $(free_port postgres)
# A socket's path may have 107 bytes, and a checkout may lie deep.
unix_socket_directories = ''
max_connections = 400
shared_buffers = 128MB
fsync = on
full_page_writes = on
synchronous_commit = on
timezone = 'GMT'
log_timezone = 'GMT'
jit = off
END
}
start_postgres() {
    LAUNCH_IN=$STACK/postgres/data launch postgres env LD_LIBRARY_PATH="$SERVER_LIBRARIES" "${PG_AS[@]}" \
        "$PG_BIN/postgres" -D "$STACK/postgres/data"
}
# admin_sql DATABASE: runs what comes by standard input.
admin_sql() {
    PGPASSWORD=$(cat "$STACK/postgres/admin-password") PGCONNECT_TIMEOUT=3 with_libraries "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$(cat "$STACK/postgres/port")" -U weir_admin -d "$1" >>"$STACK/postgres/log" 2>&1
}
ready_postgres() {
    listens "$(cat "$STACK/postgres/port")" && admin_sql postgres <<<'SELECT 1' && make_databases
}
make_databases() {
    local home=$STACK/postgres
    if [ -e "$home/made" ]; then return 0; fi
    admin_sql postgres <<END || return 1
DROP DATABASE IF EXISTS weir;
DROP DATABASE IF EXISTS ferretdb;
DROP ROLE IF EXISTS weir_owner, weir_wallet, weir_billing, ferretdb;
CREATE ROLE weir_owner LOGIN CREATEDB CREATEROLE PASSWORD '$(cat "$home/owner-password")';
CREATE ROLE weir_wallet LOGIN PASSWORD '$(cat "$home/wallet-password")';
CREATE ROLE weir_billing LOGIN PASSWORD '$(cat "$home/billing-password")';
CREATE ROLE ferretdb LOGIN PASSWORD '$(cat "$home/ferretdb-password")';
CREATE DATABASE weir OWNER weir_owner;
CREATE DATABASE ferretdb OWNER ferretdb;
END
    admin_sql weir <<END || return 1
CREATE SCHEMA wallet AUTHORIZATION weir_wallet;
CREATE SCHEMA billing AUTHORIZATION weir_billing;
END
    touch "$home/made"
}
# url_postgres [ROLE DATABASE]
url_postgres() {
    local role=${1:-owner} user
    user=weir_$role
    if [ "$role" = ferretdb ]; then user=ferretdb; fi
    echo "postgres://$user:$(cat "$STACK/postgres/$role-password")@127.0.0.1:$(cat "$STACK/postgres/port")/${2:-weir}"
}

# ── FerretDB: MongoDB's protocol on a database of that PostgreSQL ───────────────────────────────────────────────────────

prepare_ferretdb() { free_port ferretdb >/dev/null; }
start_ferretdb() {
    launch ferretdb env "FERRETDB_LISTEN=127.0.0.1:$(cat "$STACK/ferretdb/port")" \
        "FERRETDB_POSTGRESQL_URL=$(url_postgres ferretdb ferretdb)" "$FERRETDB"
}
ready_ferretdb() { listens "$(cat "$STACK/ferretdb/port")"; }
url_ferretdb() { echo "mongodb://127.0.0.1:$(cat "$STACK/ferretdb/port")/weir"; }
