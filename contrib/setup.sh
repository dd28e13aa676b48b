# Sourced by quickstart and run-tests: packages and the build. Debian 12 or newer; root only where packages are missing.
# shellcheck shell=bash
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
die() { printf '\n%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# What it takes to build dmsrd, and what the tests and the show add.
BUILD_PACKAGES="gcc make autoconf automake libtool libltdl-dev pkg-config libc6-dev libevent-dev libpq-dev libmicrohttpd-dev libjansson-dev
	libsqlite3-dev libxxhash-dev libssl-dev libsystemd-dev librdkafka-dev"

# install_packages LOG PACKAGE...: what is there already is not asked for again.
install_packages() {
	local log=$1 missing=() p; shift
	for p; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} = 0 ] && { echo "all packages are here"; return 0; }
	[ "$(id -u)" = 0 ] || die "these packages are missing, and only root can install them: apt-get install ${missing[*]}"
	echo "installing ${#missing[@]} packages (apt's own words: $log)"
	# The PostgreSQL package would start a server of its own on port 5432: not on our account.
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	fi
	export DEBIAN_FRONTEND=noninteractive
	local apt=(apt-get -y -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold)
	{ "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } >>"$log" 2>&1 ||
		{ tail -n 15 "$log" >&2; die "apt could not install the packages, see $log"; }
}

# build DIR LOG [CONFIGURE-ARG...]: configures DIR once for these arguments, then makes it.
build() {
	local dir=$1 log=$2 args; shift 2
	args="$*"
	mkdir -p "$dir"
	[ -x "$top/configure" ] && [ "$top/configure" -nt "$top/configure.ac" ] && [ "$top/Makefile.in" -nt "$top/Makefile.am" ] ||
		(cd "$top" && ./autogen.sh) >>"$log" 2>&1 || { tail -n 20 "$log" >&2; return 1; }
	if [ ! -e "$dir/Makefile" ] || [ "$(cat "$dir/.configured" 2>/dev/null)" != "$args" ]; then
		(cd "$dir" && "$top/configure" "$@") >>"$log" 2>&1 || { tail -n 5 "$log" >&2; return 1; }
		echo "$args" >"$dir/.configured"
	fi
	make -s -C "$dir" -j"$(nproc)" >>"$log" 2>&1 || { grep -E 'error|warning|Error' "$log" | tail -n 20 >&2; return 1; }
}

# The newest PostgreSQL server that Debian has installed: its prefix.
debian_postgres() { printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1 | sed 's,/bin/postgres$,,'; }
