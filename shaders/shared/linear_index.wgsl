//! linear_index: the value that a lane of a one-dimensional kernel works on.

const LINEAR_LANES: u32 = 64u;

fn linear_index(workgroup: vec3<u32>, grid: vec3<u32>, lane: u32) -> u32 {
    return (workgroup.y * grid.x + workgroup.x) * LINEAR_LANES + lane;
}
