#!/usr/bin/env bash
# Builds the sandbox image where no registry can be reached: Debian from its packages, Python's from wheels.
#
#   launch/docker/build_image.sh [IMAGE]        IMAGE: mlagent-jax-sandbox:1 by default
#
# Needs root, debootstrap, pip and the docker command (DOCKER_HOST names the engine). MIRROR: where Debian's packages
# come from. The same packages give the same image: names are sorted, times fixed, caches and logs left out.
set -euo pipefail
image=${1:-mlagent-jax-sandbox:1}
here=$(cd "$(dirname "$0")" && pwd)
mirror=${MIRROR:-http://deb.debian.org/debian}
python=${PYTHON:-python3}
suite=bookworm # its Python is 3.11

for needed in debootstrap docker "$python"; do
  command -v "$needed" >/dev/null || { echo "build_image.sh needs $needed: apt-get install debootstrap docker.io python3-pip" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "build_image.sh must be root, as debootstrap wants: sudo $0" >&2; exit 1; }
docker version >/dev/null || { echo "no engine answers at ${DOCKER_HOST:-the default socket}" >&2; exit 1; }

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/root

# Wheels come while Debian does.
"$python" -m pip install -q --disable-pip-version-check --no-compile --no-deps --only-binary=:all: \
  --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
  --platform "manylinux2014_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" --platform "manylinux_2_27_$(uname -m)" \
  --platform "manylinux_2_28_$(uname -m)" --platform any \
  --target "$stage/packages" -r "$here/requirements.txt" &
wheels=$!
debootstrap --variant=minbase --include=python3 "$suite" "$root" "$mirror" >"$stage/log" 2>&1 \
  || { tail -20 "$stage/log" >&2; exit 1; }
wait "$wheels"

mv "$stage"/packages/* "$root/usr/local/lib/python3.11/dist-packages/"
# Tests of the packages are a fifth of them, and nothing that a script imports.
find "$root/usr/local/lib/python3.11/dist-packages" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$root"/usr/share/{doc,man,info,locale,zoneinfo,lintian,bash-completion} \
  "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/var/cache/ldconfig "$root"/boot \
  "$root"/etc/machine-id "$root"/etc/hostname "$root"/etc/resolv.conf
mkdir -p "$root/workspace" "$root/usr/share/zoneinfo"
# Nothing can be written in a container, so what is compiled is compiled now; by content, not by time. Some files of
# the standard library's tests are not meant to compile.
chroot "$root" python3 -m compileall -q --invalidation-mode unchecked-hash -j 0 \
  /usr/lib/python3.11 /usr/local/lib/python3.11/dist-packages >/dev/null 2>&1 || true
chroot "$root" python3 -c 'import joblib, pandas, PIL.Image, scipy.stats, sklearn.ensemble' # that no package is missing
# Programs that change their user have no use where no user may be changed.
find "$root" -xdev -type f -perm /6000 -exec chmod a-s {} +
rm -rf "$root"/tmp/* "$root"/dev/* "$root"/proc/* "$root"/sys/*

tar --sort=name --mtime=@0 --numeric-owner --xattrs-exclude='*' -C "$root" -c . \
  | docker import --change 'LABEL org.mlagent-jax.image=sandbox' --change 'ENV LANG=C.UTF-8' \
    --change 'WORKDIR /workspace' --change 'USER 65534:65534' --change 'CMD ["python3"]' \
    --message 'mlagent-jax sandbox' - "$image" >/dev/null
docker image inspect --format "$image {{.Id}} {{.Size}} bytes" "$image"
