//! Twin of `token_embedding`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::token_embedding::{Params, token_embedding as record_token_embedding};

/// `table[id] + positions[t]` for each id; the position alone beyond the table, and 0 where there are no positions.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ids are whole numbers")]
pub fn token_embedding(
    ids: &[f64],
    table: &[f64],
    positions: Option<&[f64]>,
    [tokens, channels]: [usize; 2],
) -> Vec<f64> {
    let mut output = Vec::new();
    for (index, &id) in ids.iter().enumerate() {
        for channel in 0..channels {
            let value = table.get(id as usize * channels + channel).copied().unwrap_or(0.0);
            let place = index % tokens * channels + channel;
            output.push(value + positions.map_or(0.0, |positions| positions[place]));
        }
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let (tokens, channels) = (params.tokens as usize, params.channels as usize);
    let (first, rows) = (f64::from(params.first_row), f64::from(params.rows));
    let ids = operands.input("ids");
    // An id out of this range is moved beyond the table.
    let local: Vec<f64> =
        ids.iter().map(|&id| if id >= first && id < first + rows { id - first } else { rows }).collect();
    let table = operands.input("table");
    let positions = operands.flag("HAS_POSITIONS").then(|| operands.input("positions"));
    let mut output = token_embedding(&local, table, positions, [tokens, channels]);
    if params.first_row > 0 {
        for (index, value) in output.iter_mut().enumerate() {
            if local[index / channels] >= rows {
                *value = operands.input("output")[index];
            }
        }
    }
    vec![("output", output)]
}

fn case(name: &'static str, shape: [usize; 2], channels: usize, tables: &[usize], ids: Vec<f64>) -> Case {
    let tokens = shape[1];
    let mut inputs = vec![
        Input::given(shape, Role::Index, ids),
        Input::random([tokens + 1, channels], Role::Element, 1.0, 1),
    ];
    for (&rows, seed) in tables.iter().zip(2..) {
        inputs.push(Input::random([rows, channels], Role::Element, 1.0, seed));
    }
    Case {
        name,
        inputs,
        record: Box::new(|recording, tensors| {
            record_token_embedding(recording, &tensors[0], &tensors[2..], Some(&tensors[1]))
        }),
        expected: Box::new(move |values| {
            token_embedding(&values[0], &values[2..].concat(), Some(&values[1]), [tokens, channels])
        }),
        terms: 2,
    }
}

/// Rows of one table alone.
fn rows(name: &'static str, shape: [usize; 2], channels: usize, rows: usize, ids: Vec<f64>) -> Case {
    let inputs =
        vec![Input::given(shape, Role::Index, ids), Input::random([rows, channels], Role::Element, 1.0, 1)];
    Case {
        name,
        inputs,
        record: Box::new(|recording, tensors| {
            record_token_embedding(recording, &tensors[0], &tensors[1..], None)
        }),
        expected: Box::new(move |values| token_embedding(&values[0], &values[1], None, [shape[1], channels])),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let ids = |count: usize, rows: u32| (0..).take(count).map(|i: u32| f64::from(i * 7919 % rows)).collect();
    vec![
        case("one table", [1, 5], 8, &[10], ids(5, 10)),
        case("three tables, two images", [2, 77], 12, &[50, 31, 19], ids(154, 100)),
        case("one channel, one token", [1, 1], 1, &[1], vec![0.0]),
        case("edges of the tables", [1, 4], 65, &[3, 4], vec![0.0, 2.0, 3.0, 6.0]),
        rows("a class for each half", [2, 1], 48, 11, vec![10.0, 3.0]),
        rows("no positions, an id beyond the table", [1, 3], 5, 4, vec![1.0, 4.0, 3.0]),
        case("id beyond the tables", [1, 3], 4, &[3, 4], vec![7.0, 4_294_967_295.0, 6.0]),
    ]
}
