//! conv2d_product: the sums of one workgroup of a convolution read as a matrix product, over a range of steps.
//!
//! A step is DEPTH channels of one tap of the window; the taps follow each other, and `blocks` steps make a tap.

override HAS_SECOND: bool = false;

const OUTSIDE: u32 = 0xffffffffu;

/// For each row of the tile, the pixel [N * H * W] that the present tap reads, or OUTSIDE.
var<workgroup> pixels: array<u32, TILE_ROWS>;

fn load_channel(pixel: u32, channel: u32) -> f32 {
    if channel < params.channels {
        return widen(input[pixel * params.channels + channel]).x;
    }
    let behind = channel - params.channels;
    if HAS_SECOND && behind < params.second_channels {
        return widen(second[pixel * params.second_channels + behind]).x;
    }
    return 0.0;
}

/// Four channels of what a row of the tile reads; 0 outside of the image and behind the last channel.
fn load_pixel(row: u32, channel: u32) -> vec4<f32> {
    let pixel = pixels[row];
    if pixel == OUTSIDE {
        return vec4(0.0);
    }
    if WORD == 1u {
        return vec4(
            load_channel(pixel, channel),
            load_channel(pixel, channel + 1u),
            load_channel(pixel, channel + 2u),
            load_channel(pixel, channel + 3u),
        );
    }
    if channel < params.channels {
        return widen(input[(pixel * params.channels + channel) / WORD]);
    }
    let behind = channel - params.channels;
    if HAS_SECOND && behind < params.second_channels {
        return widen(second[(pixel * params.second_channels + behind) / WORD]);
    }
    return vec4(0.0);
}

/// Four columns of a term; 0 behind the last.
fn load_weight(term: u32, column: u32) -> vec4<f32> {
    var values = vec4(0.0);
    if column >= params.columns {
        return values;
    }
    let at = term * params.columns + column;
    if WORD == 4u {
        return weight_values(at);
    }
    let behind = params.columns - column;
    values.x = weight_values(at).x;
    if behind > 1u { values.y = weight_values(at + 1u).x; }
    if behind > 2u { values.z = weight_values(at + 2u).x; }
    if behind > 3u { values.w = weight_values(at + 3u).x; }
    return values;
}

/// Steps of one tap.
fn tap_steps() -> u32 {
    return (params.channels + params.second_channels + DEPTH - 1u) / DEPTH;
}

/// Adds the products of the steps from `first_step` on, up to `end_step`, to the lane's sums. A tile has no more rows
/// than a workgroup has lanes.
fn multiply(block: ptr<function, Block>, first_row: u32, first_column: u32, first_step: u32, end_step: u32, lane: u32) {
    let channels = params.channels + params.second_channels;
    let blocks = tap_steps();
    // each lane follows one row of the tile: where its window begins, possibly left of or above the image,
    // which the unsigned numbers show as being far right of or below it
    let row = first_row + lane;
    let image = row / (params.output_height * params.output_width);
    let first_y = row / params.output_width % params.output_height * params.stride - params.top;
    let first_x = row % params.output_width * params.stride - params.left;

    for (var index = first_step; index < end_step; index += 1u) {
        let tap = index / blocks;
        let first_channel = index % blocks * DEPTH;
        if index == first_step || first_channel == 0u {
            let y = first_y + tap / params.kernel_width;
            let x = first_x + tap % params.kernel_width;
            let inside = row < params.rows && y < params.height && x < params.width;
            if lane < TILE_ROWS {
                pixels[lane] = select(OUTSIDE, (image * params.height + y) * params.width + x, inside);
            }
            workgroupBarrier();
        }

        // stage: neighbouring lanes read neighbouring channels of a pixel, and neighbouring columns of a term
        for (var unit = lane; unit < TILE_ROWS * TERM_QUADS; unit += LANES) {
            let row = unit / TERM_QUADS;
            let quad = unit % TERM_QUADS;
            left[row * LEFT_STRIDE + quad] = load_pixel(row, first_channel + 4u * quad);
        }
        for (var unit = lane; unit < DEPTH * COLUMN_QUADS; unit += LANES) {
            let channel = first_channel + unit / COLUMN_QUADS;
            var values = vec4(0.0);
            if channel < channels {
                values = load_weight(tap * channels + channel, first_column + 4u * (unit % COLUMN_QUADS));
            }
            right[unit] = values;
        }
        workgroupBarrier();
        multiply_panels(block, lane % LANES_X, lane / LANES_X);
        workgroupBarrier();
    }
}
