//! packs_1: values are read one by one, wherever they lie.
//!
//! The file that uses it has workgroup arrays `left` and `right`.

alias Pack = Element;

fn stage_left(at: u32, pack: Pack) {
    left[at] = pack;
}

fn stage_right(at: u32, pack: Pack) {
    right[at] = pack;
}
