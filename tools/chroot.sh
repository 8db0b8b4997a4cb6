# A Debian in a chroot, from the mirror that this machine's apt is set to;
# sourced after lib.sh by the scripts that want one.  They need root, and a
# namespace of their own for mounts: enter_namespace.
#
#   enter_namespace "$0" "$@"      goes on in one, in which whatever is left
#                                  running or mounted ends with the script
#   find_mirror                    sets $mirror and $codename, this machine's
#                                  release, and $sources, its sources.list
#   make_chroot RELEASE OPTION...  by debootstrap in $root, unless it is there
#   mount_chroot                   and unmount_chroot
#   inside CMD                     runs it there

enter_namespace()
{
	[ "$(id -u)" = 0 ] || die "needs root"
	command -v debootstrap >/dev/null || die "needs the package debootstrap"
	[ "${INSIDE_NAMESPACE:-}" = yes ] || INSIDE_NAMESPACE=yes \
		exec unshare --mount --pid --fork --kill-child -- "$@"
}

find_mirror()
{
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	sources=$(apt-get indextargets --format \
		'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' 'Origin: Debian' | sort -u)
	mirror=$(awk -v release="$codename" '$3 == release { print $2; exit }' \
		<<<"$sources")
	[ -n "$mirror" ] ||
		die "apt has no Debian mirror for $codename: apt-get update?"

	eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
	[ -z "${http_proxy:-}" ] || export http_proxy
}

make_chroot()
{
	local release=$1

	shift
	if [ ! -e "$root/etc/debian_version" ]; then
		say "debootstrap $release in $root"
		debootstrap --variant=minbase "$@" "$release" "$root" "$mirror" \
			>"$root.log" 2>&1 || return 1
		rm -f "$root.log"
	fi
	apt-config dump | grep -E '^Acquire::(http|https)::' \
		>"$root/etc/apt/apt.conf.d/90mirror" || true
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/"

	# No service of Debian's starts in here.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
}

mount_chroot()
{
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount --make-rslave "$root/dev"
}

unmount_chroot()
{
	umount -R -l "$root/proc" "$root/dev" 2>/dev/null || true
}

inside()
{
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		${http_proxy:+http_proxy="$http_proxy"} LANG=C.UTF-8 TERM=dumb \
		HOME=/root chroot "$root" "$@"
}
