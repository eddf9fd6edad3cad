//! Pickles: what PyTorch saves by default. They are recognised by their contents, and never read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Why a pickle is not read, and what to do: follows the name of the file.
pub(super) const PICKLE: &str = "is a PyTorch pickle, which is not read because loading one can run programs that \
    are hidden in it. Convert it to safetensors, in a Python with torch and safetensors: \
    `from safetensors.torch import save_file; state = torch.load(FILE, weights_only=True); \
    state = state.get('state_dict', state); \
    save_file({name: value.clone() for name, value in state.items() if torch.is_tensor(value)}, 'model.safetensors')`";

/// How a zip archive starts.
const ZIP: &[u8] = b"PK\x03\x04";
/// The member of a PyTorch archive that is the pickle.
const MEMBER: &[u8] = b"data.pkl";
/// The list of a zip archive's members is at its end; few are longer than this.
const TAIL: usize = 1 << 20;

/// Whether the contents of what is no safetensors file are a pickle: PyTorch's zip archive, or what it saved before
/// 1.6.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    if bytes.starts_with(ZIP) {
        let head = &bytes[..bytes.len().min(4096)];
        let tail = &bytes[bytes.len().saturating_sub(TAIL)..];
        return [head, tail].iter().any(|part| part.windows(MEMBER.len()).any(|window| window == MEMBER));
    }
    // The opcode PROTO with the number of a protocol.
    matches!(bytes, [0x80, 2..=5, third, ..] if *third != 0)
}

/// Whether a file starts as a pickle does; not, if it cannot be read.
pub(super) fn is_pickle_file(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut head));
    read.is_ok() && is_pickle(&head)
}

#[cfg(test)]
mod tests {
    use super::is_pickle;

    #[test]
    fn pickles_are_told_by_their_contents() {
        assert!(is_pickle(b"PK\x03\x04................archive/data.pkl..."), "the archive of today");
        assert!(is_pickle(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."), "the file of PyTorch 1.5");
        assert!(is_pickle(b"\x80\x04\x95"), "a newer protocol");
        assert!(!is_pickle(b"PK\x03\x04word/document.xml"), "another archive");
        assert!(!is_pickle(b"\x80\x02\0\0\0\0\0\0{"), "a header of 640 bytes");
        assert!(!is_pickle(b""), "nothing");
    }
}
