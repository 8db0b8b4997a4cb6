# What the scripts of this project share; sourced, not run.
#
#   $top            the checkout
#   $version        the extension's
#   $plain_user     who servers and tests run as: never root
#   say, die        a line to the user; the last one
#   as_root CMD     by sudo when needed
#   as_plain CMD    as $plain_user, with a home that it can write
#   build_and_install [VAR=VALUE...]

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
make=${MAKE:-make}
version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$top/pg_narinfo.control")

say()
{
	printf '%s\n' "$*"
}

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root for: $* (there is no sudo here)"
	fi
}

# PostgreSQL refuses to run as root; its package brings a user to run as.
if [ "$(id -u)" = 0 ]; then
	plain_user=postgres
else
	plain_user=$(id -un)
fi

# The settings of whoever calls are left behind: a PGDATABASE or LC_ALL must
# not change what a server or a test does.
as_plain()
{
	local clean=(env -i "PATH=$PATH" "HOME=${plain_home:-/nonexistent}"
		"USER=$plain_user" "LOGNAME=$plain_user" LANG=C.UTF-8
		LC_ALL=C.UTF-8 TZ=UTC "TMPDIR=${plain_tmp:-/tmp}")

	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid="$plain_user" --regid="$(id -g "$plain_user")" \
			--init-groups -- "${clean[@]}" "$@"
	else
		"${clean[@]}" "$@"
	fi
}

pg_config=${PG_CONFIG:-pg_config}

jobs=$(nproc 2>/dev/null || echo 2)

# Builds as whoever calls, in the checkout; installs as root unless
# PostgreSQL's directories are open to the caller.
build_and_install()
{
	local libdir sharedir

	command -v "$pg_config" >/dev/null ||
		die "no $pg_config: set PG_CONFIG, or see tools/deps"

	# Called from make, its job server goes on; by hand, as many as fit.
	local parallel=(-j "$jobs")
	[ -z "${MAKELEVEL:-}" ] || case " ${MAKEFLAGS:-} " in
		*" -j"*) parallel=() ;;
	esac

	"$make" -C "$top" --no-print-directory -s "${parallel[@]}" \
		PG_CONFIG="$pg_config" all "$@" ||
		die "the build failed"

	libdir=$("$pg_config" --pkglibdir)
	sharedir=$("$pg_config" --sharedir)/extension
	local install=("$make" -C "$top" --no-print-directory -s
		PG_CONFIG="$pg_config" install "$@")

	if [ -w "$libdir" ] && [ -w "$sharedir" ]; then
		"${install[@]}" || die "make install failed"
	else
		# sudo has its own idea of PATH and the environment, and a job
		# server cannot be reached from there.
		as_root env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "PATH=$PATH" \
			"${install[@]}" || die "make install failed"
	fi
}
