//! token_embedding: looks up tokens in one range of rows of the table, and adds their positions if there are any.
//!
//!   output[n, t, c] = table[ids[n, t] - first_row, c] + positions[t, c]     0 for positions unless HAS_POSITIONS
//!   if first_row <= ids[n, t] < first_row + rows
//!
//! One dispatch for each range, since a whole table may be too large to bind. The first range also writes the
//! positions alone for ids that it does not hold; later ones leave such values as they are.
//!
//! ids        [N, T]     u32
//! table      [rows, C]  Element
//! positions  [P, C]     Element  P >= T; read if HAS_POSITIONS
//! output     [N, T, C]  Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   CLIPTextEmbeddings of transformers
//! twin     src/reference/token_embedding.rs

struct Params {
    count: u32,     // N * T * C
    tokens: u32,    // T
    channels: u32,  // C
    first_row: u32, // of the table
    rows: u32,      // of the table
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<Element>;
@group(0) @binding(3) var<storage, read> positions: array<Element>;
@group(0) @binding(4) var<storage, read_write> output: array<Element>;

override HAS_POSITIONS: bool = false;

@compute @workgroup_size(64)
fn token_embedding(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let token = index / params.channels;
    let channel = index % params.channels;
    var position = 0.0;
    if HAS_POSITIONS {
        position = f32(positions[token % params.tokens * params.channels + channel]);
    }
    let id = ids[token];
    if id >= params.first_row && id - params.first_row < params.rows {
        let value = f32(table[(id - params.first_row) * params.channels + channel]);
        output[index] = Element(value + position);
    } else if params.first_row == 0u {
        output[index] = Element(position);
    }
}
