//! Rows of a table, with position embeddings: tokens, classes, entries of a codebook.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::{Error, Result};
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static TOKEN_EMBEDDING: Shader = Shader {
    name: "token_embedding",
    source: source!("token_embedding"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["ids", "table", "positions", "output"],
    definitions: &[],
};

/// The uniform of `token_embedding`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values of the output.
    pub count: u32,
    /// T.
    pub tokens: u32,
    /// C.
    pub channels: u32,
    /// The row of the whole table with which this range starts.
    pub first_row: u32,
    /// Rows of this range.
    pub rows: u32,
}

/// Records the look-up of rows of a table, one dispatch for each of its ranges, with position embeddings added
/// where there are any.
///
/// # Shapes
/// - `ids`: `[N, T]`, u32
/// - `tables`: consecutive ranges `[rows, C]` of the rows of the table
/// - `positions`: `[P, C]`, `P >= T`, same element type as the tables
/// - returns `[N, T, C]`; for an id beyond the tables, the position alone, or zeros
///
/// # Errors
/// [`Error::Shape`] if there is no table, or the tensors do not fit together.
pub fn token_embedding(
    recording: &mut Recording,
    ids: &Tensor,
    tables: &[Tensor],
    positions: Option<&Tensor>,
) -> Result<Tensor> {
    const NAME: &str = "token_embedding";
    let [images, tokens] = *ids.shape().extents() else {
        return Err(ids.wrong(NAME, "ids", "[N, T]"));
    };
    ids.expect_element(NAME, "ids", ElementType::U32)?;
    let Some(first) = tables.first() else {
        return Err(Error::Shape {
            operation: NAME,
            tensor: "tables".to_owned(),
            expected: "at least one table".to_owned(),
            found: "none".to_owned(),
        });
    };
    let (channels, element) = (first.shape().channels(), first.element());
    if let Some(positions) = positions {
        let places = positions.shape().rows();
        positions.expect(NAME, "positions", &[places, channels])?;
        positions.expect_element(NAME, "positions", element)?;
        if places < tokens {
            return Err(positions.wrong(NAME, "positions", &format!("at least {tokens} rows")));
        }
    }
    for (index, table) in tables.iter().enumerate() {
        let name = format!("tables[{index}]");
        let rows = table.shape().rows();
        table.expect(NAME, &name, &[rows, channels])?;
        table.expect_element(NAME, &name, element)?;
        if rows == 0 {
            return Err(table.wrong(NAME, &name, "at least one row"));
        }
        extent(NAME, &name, table.shape().count())?;
    }
    let output = recording.transient([images, tokens, channels], element);
    let count = output.shape().count();
    let mut first_row = 0;
    for (index, table) in tables.iter().enumerate() {
        let rows = table.shape().rows();
        let params = Params {
            count: extent(NAME, "ids", count)?,
            tokens: extent(NAME, "ids", tokens)?,
            channels: extent(NAME, "tables", channels)?,
            first_row: extent(NAME, "tables", first_row)?,
            rows: extent(NAME, "tables", rows)?,
        };
        first_row += rows;
        recording.dispatch(Dispatch {
            shader: &TOKEN_EMBEDDING,
            element,
            definitions: &[],
            constants: &[("HAS_POSITIONS", f64::from(u8::from(positions.is_some())))],
            params: bytemuck::bytes_of(&params),
            bindings: &[
                (ids, Access::Read),
                (table, Access::Read),
                // An absent tensor needs something bound in its place: the table, which is only read as well.
                (positions.unwrap_or(table), Access::Read),
                (&output, if index == 0 { Access::Write } else { Access::ReadWrite }),
            ],
            grid: linear_grid(count, 64),
            multiply_accumulates: 0,
        });
    }
    Ok(output)
}
