//! cooperative_matrix: the directive of shaders on cooperative matrices, in front of all declarations.

enable wgpu_cooperative_matrix;
