//! channel_pair: two inputs read as one, the channels of `second` behind those of `input`.
//!
//! The file that uses it binds both and has `first_channels` and `second_channels` in its `params`.

override PAIR: bool = true; // false: there is no second input, which saves the test of each channel

fn load_pair(row: u32, channel: u32) -> f32 {
    if !PAIR || channel < params.first_channels {
        return f32(input[row * params.first_channels + channel]);
    }
    return f32(second[row * params.second_channels + channel - params.first_channels]);
}
