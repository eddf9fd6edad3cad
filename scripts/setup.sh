# What the scripts beside it need on a fresh machine. Sourced by them; says what it does.
# Linux only: macOS and Windows bring a graphics driver of their own.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

install_packages() {
    if ! command -v apt-get >/dev/null; then
        say "please install $* (or your distribution's packages of the same purpose), then try again"
        exit 1
    fi
    local run=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { say "please install $* as root, then try again"; exit 1; }
        run=(sudo)
    fi
    say "installing $*"
    local log
    log=$(mktemp)
    if ! { "${run[@]}" apt-get update -qq &&
        "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
        >"$log" 2>&1; then
        cat "$log" >&2
        say "could not install $*"
        exit 1
    fi
    rm -f "$log"
}

has_vulkan() {
    local libraries
    libraries=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null || true)
    [[ $libraries == *libvulkan.so.1* ]] || return 1
    [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && return 0
    local folder
    for folder in /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d; do
        compgen -G "$folder/*.json" >/dev/null && return 0
    done
    return 1
}

set_up_compiler() {
    if ! command -v cargo >/dev/null && [ -f "$HOME/.cargo/env" ]; then
        . "$HOME/.cargo/env"
    fi
    if ! command -v cargo >/dev/null; then
        say "there is no cargo on this machine: install Rust from https://rustup.rs, then try again"
        exit 1
    fi
    [ "$(uname -s)" = Linux ] || return 0
    command -v cc >/dev/null || install_packages gcc libc6-dev
    # Without it Mesa complains on every start; nothing of ours uses it.
    if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
        XDG_RUNTIME_DIR=$(mktemp -d)
        export XDG_RUNTIME_DIR
        trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
    fi
}

set_up() {
    set_up_compiler
    [ "$(uname -s)" = Linux ] || return 0
    if ! has_vulkan; then
        say "this machine has no Vulkan driver: a software one will draw the pictures, slowly but rightly"
        install_packages libvulkan1 mesa-vulkan-drivers
    fi
}
