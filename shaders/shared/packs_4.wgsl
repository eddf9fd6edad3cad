//! packs_4: four values are read at once, where every row has a multiple of four.
//!
//! The file that uses it has workgroup arrays `left` and `right`: of single values, since Metal loads fragments from
//! nothing else.

alias Pack = vec4<Element>;

fn stage_left(at: u32, pack: Pack) {
    left[at] = pack.x;
    left[at + 1u] = pack.y;
    left[at + 2u] = pack.z;
    left[at + 3u] = pack.w;
}

fn stage_right(at: u32, pack: Pack) {
    right[at] = pack.x;
    right[at + 1u] = pack.y;
    right[at + 2u] = pack.z;
    right[at + 3u] = pack.w;
}
