//! Laws of every shader file: it is valid on all backends, its header tells the truth, and Rust agrees with it.

#![expect(clippy::unwrap_used, reason = "a test program")]

use std::collections::BTreeSet;
use std::mem::{offset_of, size_of};
use std::path::Path;

use deepcache::gpu::choices::{DeviceFacts, Family, Fragments};
use deepcache::gpu::shader::Shader;
use deepcache::kernels::{self, SHADERS};
use deepcache::tensor::ElementType;
use naga::back::pipeline_constants::process_overrides;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, GlobalVariable, Module, ShaderStage, StorageAccess, TypeInner};

const ELEMENTS: [ElementType; 2] = [ElementType::F32, ElementType::F16];

/// Sets of values to try for a shader with definitions; one that is not listed is tried with ones.
const DEFINITIONS: &[(&str, &[&[u32]])] = &[
    ("attention_broadcast", &[&[1, 1], &[40, 2], &[80, 1]]),
    ("attention_broadcast_wide", &[&[81], &[160], &[512], &[960]]),
    ("attention_cooperative", COOPERATIVE_ATTENTION),
    ("attention_flash", FLASH),
    ("conv2d_broadcast", &[&[0], &[1]]),
    ("conv2d_cooperative", COOPERATIVE),
    ("conv2d_merge", &[&[1], &[4]]),
    ("conv2d_partial", TILES),
    ("conv2d_tiled", TILES),
    ("matmul_broadcast", &[&[0], &[1]]),
    ("matmul_cooperative", COOPERATIVE),
    ("matmul_merge", &[&[1], &[4]]),
    ("matmul_partial", TILES),
    ("matmul_tiled", TILES),
];

/// Rows and columns of a fragment; values at once; whether weights have 8 bits; lanes of a workgroup.
const COOPERATIVE: &[&[u32]] = &[
    &[8, 1, 0, 32],
    &[8, 4, 0, 128],
    &[16, 4, 0, 128],
    &[16, 1, 0, 256],
    &[8, 1, 1, 128],
    &[8, 4, 1, 32],
    &[16, 4, 1, 128],
    &[16, 1, 1, 256],
];

/// Rows and columns of a fragment; values at once; lanes of a workgroup; size of a head; queries of a workgroup; keys at once.
const COOPERATIVE_ATTENTION: &[&[u32]] = &[
    &[8, 1, 32, 1, 32, 32],
    &[8, 4, 128, 40, 32, 32],
    &[16, 4, 128, 80, 32, 32],
    &[16, 1, 256, 160, 16, 32],
];

/// Values at once; size of a head; queries and lanes of a workgroup; keys whose values are staged.
const FLASH: &[&[u32]] = &[
    &[1, 1, 32, 64, 16],
    &[4, 40, 64, 128, 32],
    &[4, 64, 64, 128, 16],
    &[4, 64, 32, 64, 8],
    &[1, 80, 16, 64, 8],
    &[4, 160, 16, 64, 4],
    &[4, 160, 32, 128, 8],
    &[1, 512, 4, 64, 0],
    &[1, 960, 4, 64, 0],
];

/// Values at once; whether weights have 8 bits; rows and columns of a workgroup; of a lane; terms at once.
const TILES: &[&[u32]] = &[
    &[1, 0, 64, 64, 8, 8, 16],
    &[4, 0, 128, 128, 8, 8, 8],
    &[4, 0, 128, 64, 8, 8, 16],
    &[4, 0, 64, 64, 4, 4, 16],
    &[4, 0, 32, 64, 4, 8, 16],
    &[4, 0, 32, 32, 4, 4, 16],
    &[1, 0, 64, 16, 4, 4, 16],
    &[1, 1, 64, 64, 8, 8, 16],
    &[4, 1, 128, 64, 8, 8, 16],
    &[4, 1, 32, 64, 4, 8, 16],
    &[1, 1, 64, 16, 4, 4, 16],
];

/// Every shader's whole text: for each element type that it is for, and each set of definitions.
fn texts(shader: &Shader) -> Vec<(String, String)> {
    let listed = DEFINITIONS.iter().find(|(name, _)| *name == shader.name);
    let ones = vec![1; shader.definitions.len()];
    let sets = listed.map_or_else(|| vec![ones], |(_, sets)| sets.iter().map(|set| set.to_vec()).collect());
    let mut texts = Vec::new();
    // Cooperative matrices multiply 16-bit values only.
    let elements = if shader.is_cooperative() { &ELEMENTS[1..] } else { &ELEMENTS[..] };
    for &element in elements {
        for set in &sets {
            texts.push((format!("{} {element} {set:?}", shader.name), shader.assemble(element, set)));
        }
    }
    texts
}

fn parse(title: &str, text: &str) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{title}: {}", error.emit_to_string(text)));
    let mut capabilities = Capabilities::SHADER_FLOAT16;
    if text.contains("subgroup") {
        capabilities |= Capabilities::SUBGROUP;
    }
    if text.contains("enable wgpu_cooperative_matrix;") {
        capabilities |= Capabilities::COOPERATIVE_MATRIX;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{title}: {}", error.emit_to_string(text)));
    (module, info)
}

/// Bound variables by binding number.
fn bound(module: &Module) -> Vec<(u32, &GlobalVariable)> {
    let mut variables: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| Some((variable.binding?.binding, variable)))
        .collect();
    variables.sort_by_key(|&(binding, _)| binding);
    variables
}

/// The backends that a text is for: cooperative matrices are known to Vulkan, and those of 8x8 to Metal.
fn backends(text: &str) -> &'static [&'static str] {
    if !text.contains("enable wgpu_cooperative_matrix;") {
        &["SPIR-V", "MSL", "HLSL"]
    } else if text.contains("coop_mat16x16") {
        &["SPIR-V"]
    } else {
        &["SPIR-V", "MSL"]
    }
}

#[test]
fn every_shader_validates_and_translates_to_its_backends() {
    for shader in SHADERS {
        for (title, text) in texts(shader) {
            let (module, info) = parse(&title, &text);
            let (module, info) = process_overrides(
                &module,
                &info,
                Some((ShaderStage::Compute, shader.name)),
                &naga::back::PipelineConstants::default(),
            )
            .unwrap_or_else(|error| panic!("{title}: {error}"));

            spv::write_vec(
                &module,
                &info,
                &spv::Options { lang_version: (1, 3), ..Default::default() },
                None,
            )
            .unwrap_or_else(|error| panic!("{title}: SPIR-V: {error}"));

            if !backends(&text).contains(&"MSL") {
                continue;
            }
            let mut resources = msl::EntryPointResources { sizes_buffer: Some(30), ..Default::default() };
            for (slot, (_, variable)) in (0_u8..).zip(bound(&module)) {
                let mutable = variable.space
                    == AddressSpace::Storage { access: StorageAccess::LOAD | StorageAccess::STORE };
                let target = msl::BindTarget { buffer: Some(slot), mutable, ..Default::default() };
                resources.resources.insert(variable.binding.unwrap(), target);
            }
            let options = msl::Options {
                lang_version: (2, 4),
                per_entry_point_map: [(shader.name.to_owned(), resources)].into(),
                fake_missing_bindings: false,
                ..Default::default()
            };
            msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
                .unwrap_or_else(|error| panic!("{title}: MSL: {error}"));

            if !backends(&text).contains(&"HLSL") {
                continue;
            }
            let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
            let pipeline = hlsl::PipelineOptions::default();
            let mut hlsl = String::new();
            hlsl::Writer::new(&mut hlsl, &options, &pipeline)
                .write(&module, &info, None)
                .unwrap_or_else(|error| panic!("{title}: HLSL: {error}"));
        }
    }
}

#[test]
fn workgroup_memory_is_what_devices_have() {
    // those on cooperative matrices have a test of their own
    for shader in SHADERS.iter().filter(|shader| !shader.is_cooperative()) {
        for (title, text) in texts(shader) {
            let (module, _) = parse(&title, &text);
            let variables = module.global_variables.iter().map(|(_, variable)| variable);
            let shared = variables.filter(|variable| variable.space == AddressSpace::WorkGroup);
            let bytes: u32 =
                shared.map(|variable| module.types[variable.ty].inner.size(module.to_ctx())).sum();
            // Every device has 16 KiB; what takes more is recorded only where there are 32.
            let more =
                shader.name == "attention_flash" && (title.contains(", 128, ") || title.contains("960"));
            let limit = if more { 32 << 10 } else { 16 << 10 };
            assert!(bytes <= limit, "{title}: {bytes} bytes of workgroup memory");
        }
    }
}

#[test]
fn the_only_entry_point_is_named_as_the_file() {
    for shader in SHADERS {
        for (title, text) in texts(shader) {
            let (module, _) = parse(&title, &text);
            let names: Vec<_> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
            assert_eq!(names, [shader.name], "{title}");
        }
    }
}

#[test]
fn bindings_are_params_and_then_those_that_rust_lists() {
    for shader in SHADERS {
        for (title, text) in texts(shader) {
            let (module, _) = parse(&title, &text);
            let mut expected = vec!["params"];
            expected.extend(shader.bindings);
            assert!(expected.len() <= 9, "{title}: more storage buffers than every device allows");
            let variables = bound(&module);
            let names: Vec<_> =
                variables.iter().map(|(_, variable)| variable.name.as_deref().unwrap()).collect();
            assert_eq!(names, expected, "{title}");
            for (number, (binding, variable)) in (0..).zip(variables) {
                assert_eq!(binding, number, "{title}: binding numbers without gaps");
                assert_eq!(variable.space == AddressSpace::Uniform, number == 0, "{title}: binding {number}");
            }
        }
    }
}

#[test]
fn cooperative_shaders_fit_into_32_kibibytes_of_workgroup_memory_in_steps_of_16_bytes() {
    let bytes = |shader: &Shader, set: &[u32]| -> u32 {
        let title = format!("{} {set:?}", shader.name);
        let (module, _) = parse(&title, &shader.assemble(ElementType::F16, set));
        let variables = module.global_variables.iter().map(|(_, variable)| variable);
        let sizes = variables
            .filter(|variable| variable.space == AddressSpace::WorkGroup)
            .map(|variable| module.types[variable.ty].inner.size(module.to_ctx()));
        // Vulkan wants fragments to begin at multiples of 16 bytes, and drivers put one array behind the other
        sizes.inspect(|size| assert_eq!(size % 16, 0, "{title}")).sum()
    };
    for [edge, lanes] in [[8, 32], [16, 128], [16, 256], [8, 512], [16, 512]] {
        for shader in [&kernels::matmul::COOPERATIVE, &kernels::conv2d::COOPERATIVE] {
            assert!(bytes(shader, &[edge, 4, 0, lanes]) <= 24 << 10, "{}", shader.name);
        }
        for head_size in 1..=kernels::attention::LARGEST_COOPERATIVE_HEAD {
            let family = Family::Cooperative(Fragments { edge, lanes });
            let kernels::attention::Layout { shader, definitions, .. } =
                kernels::attention::Layout::new(family, &DeviceFacts::default(), 64, head_size, 4);
            let found = bytes(shader, &definitions);
            assert!(found <= 32 << 10, "{} {definitions:?}: {found} bytes", shader.name);
        }
    }
}

/// The `//!` lines at the start of a file, without the marks.
fn header(shader: &Shader) -> Vec<&str> {
    shader.source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim_start).collect()
}

#[test]
fn headers_name_every_binding_in_order_and_say_grid_numbers_source_and_twin() {
    for shader in SHADERS {
        let lines = header(shader);
        let title = format!("{}: ", shader.name);
        assert!(lines.first().is_some_and(|line| line.starts_with(&title)), "{title}first line");
        let first_words: Vec<_> = lines.iter().filter_map(|line| line.split_whitespace().next()).collect();
        for word in ["grid", "numbers", "source", "twin"] {
            assert_eq!(first_words.iter().filter(|found| **found == word).count(), 1, "{title}{word}");
        }
        let table: Vec<_> = lines
            .iter()
            .filter_map(|line| line.split_once("  "))
            .filter(|(_, rest)| rest.trim_start().starts_with('['))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(table, shader.bindings, "{title}table of bindings");
        let twin = lines.iter().find_map(|line| line.strip_prefix("twin")).unwrap().trim();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(twin).is_file(), "{title}{twin} exists");
    }
}

#[test]
fn every_shader_file_is_listed_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wgsl") {
            files.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    let listed: BTreeSet<_> = SHADERS.iter().map(|shader| shader.name.to_owned()).collect();
    assert_eq!(listed.len(), SHADERS.len(), "no shader is listed twice");
    assert_eq!(listed, files);
}

/// A struct's members with their offsets, and its size without the padding at its end.
type Layout = (Vec<(String, usize)>, usize);

fn wgsl_layout(shader: &Shader) -> Layout {
    let (title, text) = texts(shader).remove(0);
    let (module, _) = parse(&title, &text);
    let (_, params) = bound(&module)[0];
    let TypeInner::Struct { members, span } = &module.types[params.ty].inner else {
        panic!("{title}: params is a struct")
    };
    let offsets =
        members.iter().map(|member| (member.name.clone().unwrap(), member.offset as usize)).collect();
    (offsets, *span as usize)
}

/// `params!(add: kernels::add::Params, [count])` expands to
/// `("add", (vec![("count", offset_of!(kernels::add::Params, count))], size_of::<kernels::add::Params>()))`.
macro_rules! params {
    ($shader:ident: $params:ty, [$($field:ident),+ $(,)?]) => {(
        stringify!($shader),
        (
            vec![$((stringify!($field).to_owned(), offset_of!($params, $field))),+],
            size_of::<$params>(),
        ),
    )};
}

#[test]
fn params_have_one_layout_in_rust_and_wgsl() {
    use kernels::*;
    let layouts: Vec<(&str, Layout)> = vec![
        params!(activation: activation::Params, [count]),
        params!(add: add::Params, [count]),
        params!(add_time: add_time::Params, [count, image, channels]),
        params!(attention_broadcast: attention::Params,
            [heads, query_count, key_count, query_width, key_width, value_width, first_query, first_key, first_value, scale]),
        params!(attention_broadcast_wide: attention::Params,
            [heads, query_count, key_count, query_width, key_width, value_width, first_query, first_key, first_value, scale]),
        params!(attention_cooperative: attention::Params,
            [heads, query_count, key_count, query_width, key_width, value_width, first_query, first_key, first_value, scale]),
        params!(attention_flash: attention::Params,
            [heads, query_count, key_count, query_width, key_width, value_width, first_query, first_key, first_value, scale]),
        params!(blend_outside: blend_outside::Params, [count, channels]),
        params!(conv2d_broadcast: conv2d::Params,
            [height, width, channels, second_channels, output_height, output_width, rows, columns, kernel_height, kernel_width, stride, top, left]),
        params!(conv2d_cooperative: conv2d::Params,
            [height, width, channels, second_channels, output_height, output_width, rows, columns, kernel_height, kernel_width, stride, top, left]),
        params!(conv2d_merge: conv2d::Params,
            [height, width, channels, second_channels, output_height, output_width, rows, columns, kernel_height, kernel_width, stride, top, left]),
        params!(conv2d_partial: conv2d::Params,
            [height, width, channels, second_channels, output_height, output_width, rows, columns, kernel_height, kernel_width, stride, top, left]),
        params!(conv2d_tiled: conv2d::Params,
            [height, width, channels, second_channels, output_height, output_width, rows, columns, kernel_height, kernel_width, stride, top, left]),
        params!(dynamic_threshold: dynamic_threshold::Params, [count, row_length, ratio, most]),
        params!(emphasis: emphasis::Params, [count, image, channels]),
        params!(finite: finite::Params, [count, first, stride]),
        params!(forecast: forecast::Params, [count]),
        params!(geglu: geglu::Params, [count, channels]),
        params!(group_norm_moments: group_norm::Params,
            [pixels, first_channels, second_channels, groups, tiles, tile_pixels, block_pixels, epsilon]),
        params!(group_norm_apply: group_norm::Params,
            [pixels, first_channels, second_channels, groups, tiles, tile_pixels, block_pixels, epsilon]),
        params!(group_norm_moments_broadcast: group_norm::Params,
            [pixels, first_channels, second_channels, groups, tiles, tile_pixels, block_pixels, epsilon]),
        params!(group_norm_apply_broadcast: group_norm::Params,
            [pixels, first_channels, second_channels, groups, tiles, tile_pixels, block_pixels, epsilon]),
        params!(guidance: guidance::Params, [count, image_count, scale]),
        params!(guidance_rescale: guidance::RescaleParams, [images, count, scale, rescale]),
        params!(layer_norm: layer_norm::Params, [rows, channels, epsilon]),
        params!(layer_norm_broadcast: layer_norm::Params, [rows, channels, epsilon]),
        params!(layer_norm_subgroup: layer_norm::Params, [rows, channels, epsilon]),
        params!(matmul_broadcast: matmul::Params, [rows, terms, columns]),
        params!(matmul_cooperative: matmul::Params, [rows, terms, columns]),
        params!(matmul_merge: matmul::Params, [rows, terms, columns]),
        params!(matmul_partial: matmul::Params, [rows, terms, columns]),
        params!(matmul_tiled: matmul::Params, [rows, terms, columns]),
        params!(pixels: pixels::Params, [count, channels]),
        params!(scale_model_input: scale_model_input::Params, [count, row_length, copies]),
        params!(scale_model_input_beside: scale_model_input::ParamsBeside,
            [count, row_length, copies, channels, beside]),
        params!(scheduler_step: scheduler_step::Params, [count, history, image_count]),
        params!(similarity: similarity::Params, [count, groups, row]),
        params!(timestep_embedding: timestep_embedding::Params, [timesteps, frequencies]),
        params!(token_embedding: token_embedding::Params, [count, tokens, channels, first_row, rows]),
        params!(upsample_nearest: upsample_nearest::Params,
            [count, channels, input_height, input_width, height, width]),
        params!(vector_quantize: vector_quantize::Params, [count, entries, channels]),
    ];
    for shader in SHADERS {
        let (_, rust) = layouts
            .iter()
            .find(|(name, _)| *name == shader.name)
            .unwrap_or_else(|| panic!("{} has a line here", shader.name));
        assert_eq!(&wgsl_layout(shader), rust, "{}", shader.name);
    }
}
