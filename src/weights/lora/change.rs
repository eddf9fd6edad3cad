//! One change of one tensor: which tensors of the LoRA file it is made of, checked by their shapes; the values are
//! read when the tensor that it changes is packed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::factors::{Factors, Product, through_core};
use super::metadata::Alpha;
use crate::error::{Error, Result};
use crate::weights::checkpoint::Checkpoint;
use crate::weights::matrix_extents;

/// The tensors of a file that belong to one layer, by their parts.
pub(super) type Group = BTreeMap<&'static str, String>;

/// A change of one tensor.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    file: Arc<Checkpoint>,
    recipe: Recipe,
    scale: f32,
    /// O and `I * K` of the layer.
    rows: usize,
    columns: usize,
    transposed: bool,
}

/// The names of what a change is made of.
#[derive(Clone, Debug)]
enum Recipe {
    LowRank(Pair),
    Hadamard(Pair, Pair),
    Kronecker { left: Side, right: Side, left_columns: usize, right_rows: usize },
    Full(String),
}

/// Two factors, and a core between them.
#[derive(Clone, Debug)]
struct Pair {
    up: String,
    down: String,
    core: Option<String>,
    rank: usize,
    /// Whether the first factor is stored as `[R, O]`.
    turned: bool,
}

#[derive(Clone, Debug)]
enum Side {
    Whole(String),
    Pair(Pair),
}

/// The tensor that is to be changed.
pub(super) struct Goal<'a> {
    /// Its name in its own file.
    pub(super) name: &'a str,
    /// `[O, I]`, `[O, I, height, width]`, or `[O]`.
    pub(super) shape: &'a [usize],
    /// Whether it is stored as `[I, O]`.
    pub(super) transposed: bool,
}

impl Goal<'_> {
    fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    fn inputs(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    fn taps(&self) -> usize {
        self.shape.iter().skip(2).product()
    }
}

/// One layer of a LoRA file, while it is fitted to a tensor.
pub(super) struct Fitting<'a> {
    pub(super) file: &'a Arc<Checkpoint>,
    pub(super) group: &'a Group,
    pub(super) weight: f32,
    pub(super) goal: Goal<'a>,
    /// What holds where the file has no `alpha` of the layer.
    pub(super) alpha: Option<Alpha>,
}

impl Fitting<'_> {
    /// The change of a weight; none if the layer has none.
    pub(super) fn change(&self) -> Result<Option<Change>> {
        if let Some(key) = self.group.get("dora") {
            let problem =
                "belongs to a DoRA, which scales whole weights and is not supported: use a plain LoRA";
            return Err(self.file.problem(key, problem));
        }
        let has = |start: &str| self.group.keys().any(|part| part.starts_with(start));
        let (recipe, rank) = if has("hada_") {
            self.hadamard()?
        } else if has("lokr_") {
            self.kronecker()?
        } else if ["down", "up", "mid"].iter().any(|part| self.group.contains_key(part)) {
            let pair = self.pair(["up", "down", "mid"], [self.goal.rows(), self.goal.columns()], false)?;
            let rank = pair.rank;
            (Recipe::LowRank(pair), Some(rank))
        } else if let Some(key) = self.group.get("diff") {
            return self.full(key).map(Some);
        } else {
            return Ok(None);
        };
        let alpha = match self.group.get("alpha") {
            Some(key) => Some(Alpha { alpha: self.file.scalar(key)?, by_root: false }),
            None => self.alpha,
        };
        let scale = alpha.zip(rank).map_or(1.0, |(alpha, rank)| alpha.scale(rank));
        Ok(Some(self.made(recipe, scale)))
    }

    /// A change that is stored whole.
    pub(super) fn full(&self, key: &str) -> Result<Change> {
        self.expect(key, &[self.goal.shape.to_vec()])?;
        Ok(self.made(Recipe::Full(key.to_owned()), 1.0))
    }

    #[expect(clippy::cast_possible_truncation, reason = "values are 32-bit")]
    fn made(&self, recipe: Recipe, scale: f64) -> Change {
        Change {
            file: Arc::clone(self.file),
            recipe,
            scale: (f64::from(self.weight) * scale) as f32,
            rows: self.goal.rows(),
            columns: self.goal.columns(),
            transposed: self.goal.transposed,
        }
    }

    fn hadamard(&self) -> Result<(Recipe, Option<usize>)> {
        let extents = [self.goal.rows(), self.goal.columns()];
        let left = self.pair(["hada_w1_a", "hada_w1_b", "hada_t1"], extents, true)?;
        let right = self.pair(["hada_w2_a", "hada_w2_b", "hada_t2"], extents, true)?;
        let rank = left.rank;
        Ok((Recipe::Hadamard(left, right), Some(rank)))
    }

    fn kronecker(&self) -> Result<(Recipe, Option<usize>)> {
        let mut rank = None;
        let [left_rows, left_columns] = match self.group.get("lokr_w1") {
            Some(key) => self.matrix(key)?,
            None => self.outer(["lokr_w1_a", "lokr_w1_b"], false)?,
        };
        let (rows, inputs, taps) = (self.goal.rows(), self.goal.inputs(), self.goal.taps());
        let key = ["lokr_w1", "lokr_w1_a"].iter().find_map(|part| self.group.get(part));
        if !rows.is_multiple_of(left_rows) || !inputs.is_multiple_of(left_columns) {
            let problem = format!(
                "has {left_rows} rows and stands for {left_columns} columns, which do not divide {rows} and {inputs} \
                of \"{}\"",
                self.goal.name
            );
            return Err(self.file.problem(key.map_or("", String::as_str), problem));
        }
        let left = match self.group.get("lokr_w1") {
            Some(key) => Side::Whole(key.clone()),
            None => {
                let extents = [left_rows, left_columns];
                let pair = self.pair_of(["lokr_w1_a", "lokr_w1_b", ""], extents, &[left_columns], false)?;
                rank = Some(pair.rank);
                Side::Pair(pair)
            }
        };
        let (right_rows, right_inputs) = (rows / left_rows, inputs / left_columns);
        let mut kernel = vec![right_inputs];
        kernel.extend(self.goal.shape.iter().skip(2));
        let right = match self.group.get("lokr_w2") {
            Some(key) => {
                let whole = [vec![right_rows], kernel].concat();
                self.expect(key, &[whole, vec![right_rows, right_inputs * taps]])?;
                Side::Whole(key.clone())
            }
            None => {
                let extents = [right_rows, right_inputs * taps];
                let pair = self.pair_of(["lokr_w2_a", "lokr_w2_b", "lokr_t2"], extents, &kernel, true)?;
                rank = Some(pair.rank);
                Side::Pair(pair)
            }
        };
        Ok((Recipe::Kronecker { left, right, left_columns, right_rows }, rank))
    }

    fn pair(&self, parts: [&'static str; 3], extents: [usize; 2], turns: bool) -> Result<Pair> {
        self.pair_of(parts, extents, &self.goal.shape[1.min(self.goal.shape.len())..], turns)
    }

    /// Two factors of a matrix of `[rows, columns]`, each row of which has the extents `kernel`, and perhaps a core. Where
    /// there is a core and it `turns`, the first factor is stored the other way round.
    fn pair_of(
        &self,
        [up, down, core]: [&'static str; 3],
        [rows, columns]: [usize; 2],
        kernel: &[usize],
        turns: bool,
    ) -> Result<Pair> {
        let core = self.group.get(core);
        let (up, down) = (self.part(up)?, self.part(down)?);
        let turned = turns && core.is_some();
        let rank = self.extent(up, usize::from(!turned))?;
        self.expect(up, &[if turned { vec![rank, rows] } else { vec![rows, rank] }])?;
        let inner = if core.is_some() { self.extent(down, 0)? } else { rank };
        if let Some(core) = core {
            let inputs = kernel.first().copied().unwrap_or(1);
            self.expect(down, &[vec![inner, inputs]])?;
            let mut whole = vec![rank, inner];
            whole.extend(kernel.iter().skip(1));
            self.expect(core, &[whole])?;
        } else {
            self.expect(down, &[[&[rank], kernel].concat(), vec![rank, columns]])?;
        }
        Ok(Pair { up: up.clone(), down: down.clone(), core: core.cloned(), rank, turned })
    }

    /// Rows and columns of the product of two matrices.
    fn outer(&self, [left, right]: [&'static str; 2], turned: bool) -> Result<[usize; 2]> {
        let (left, right) = (self.part(left)?, self.part(right)?);
        Ok([self.extent(left, usize::from(turned))?, self.extent(right, 1)?])
    }

    fn matrix(&self, key: &str) -> Result<[usize; 2]> {
        Ok([self.extent(key, 0)?, self.extent(key, 1)?])
    }

    fn part(&self, part: &'static str) -> Result<&String> {
        self.group.get(part).ok_or_else(|| {
            let key = self.group.iter().find(|(part, _)| **part != "alpha");
            let key = key.map_or("", |(_, key)| key.as_str());
            self.file
                .problem(key, format!("has no other part beside it: \"{part}\" of this layer is missing"))
        })
    }

    /// One extent of a matrix, which is not zero.
    fn extent(&self, key: &str, number: usize) -> Result<usize> {
        let shape = self.file.shape(key).unwrap_or_default();
        match shape.get(number) {
            Some(extent) if shape.len() >= 2 && !shape.contains(&0) => Ok(*extent),
            _ => Err(self.file.problem(key, format!("has shape {shape:?}, expected a matrix"))),
        }
    }

    /// Checks that a tensor can be read and has one of these shapes.
    fn expect(&self, key: &str, shapes: &[Vec<usize>]) -> Result<()> {
        if let Some((_, entry)) = self.file.find(key)
            && let Some(problem) = entry.stored.problem()
        {
            return Err(self.file.problem(key, problem));
        }
        let found = self.file.shape(key).unwrap_or_default();
        if shapes.iter().any(|shape| matrix_extents(shape) == matrix_extents(found)) {
            return Ok(());
        }
        let problem = format!("has shape {found:?}, expected {:?} to fit \"{}\"", shapes[0], self.goal.name);
        Err(self.file.problem(key, problem))
    }
}

impl Change {
    /// Reads the values.
    pub(in crate::weights) fn read(&self) -> Result<Applied> {
        let file = &*self.file;
        let factors = match &self.recipe {
            Recipe::LowRank(pair) => Factors::LowRank(pair.read(file)?),
            Recipe::Hadamard(left, right) => Factors::Hadamard(left.read(file)?, right.read(file)?),
            Recipe::Kronecker { left, right, left_columns, right_rows } => {
                let (left, right) = (left.read(file)?, right.read(file)?);
                let right_columns = right.len() / right_rows;
                let (left_columns, right_rows) = (*left_columns, *right_rows);
                Factors::Kronecker { left, left_columns, right, right_rows, right_columns }
            }
            Recipe::Full(key) => Factors::Full(file.finite_values(key)?),
        };
        if self.transposed {
            let factors = factors.transposed(self.rows, self.columns);
            return Ok(Applied { factors, scale: self.scale, columns: self.rows });
        }
        Ok(Applied { factors, scale: self.scale, columns: self.columns })
    }

    /// The file that it is from.
    pub(in crate::weights) fn file(&self) -> String {
        self.file.files().map(|file| file.display().to_string()).collect()
    }
}

impl Pair {
    fn read(&self, file: &Checkpoint) -> Result<Product> {
        let (mut up, mut down) = (file.finite_values(&self.up)?, file.finite_values(&self.down)?);
        if self.turned {
            let rows = up.len() / self.rank;
            up = (0..up.len()).map(|at| up[at % self.rank * rows + at / self.rank]).collect();
        }
        if let Some(core) = &self.core {
            let inputs = file.shape(&self.down).map_or(1, |shape| shape[1]);
            down = through_core(&file.finite_values(core)?, &down, self.rank, inputs);
        }
        let columns = down.len() / self.rank;
        Ok(Product { up, down, rank: self.rank, columns })
    }
}

impl Side {
    fn read(&self, file: &Checkpoint) -> Result<Vec<f32>> {
        match self {
            Self::Whole(key) => file.finite_values(key),
            Self::Pair(pair) => Ok(pair.read(file)?.values()),
        }
    }
}

/// A change whose values have been read.
#[derive(Debug)]
pub(in crate::weights) struct Applied {
    factors: Factors,
    scale: f32,
    columns: usize,
}

impl Applied {
    /// Adds it to the values of the tensor from `start` on.
    pub(in crate::weights) fn add(&self, start: usize, values: &mut [f32]) {
        self.factors.add(start, self.columns, self.scale, values);
    }
}

impl Checkpoint {
    /// The one value of a tensor.
    fn scalar(&self, name: &str) -> Result<f64> {
        let Some((_, entry)) = self.find(name) else { return Err(self.missing(name)) };
        if entry.shape.iter().product::<usize>() != 1 {
            return Err(self.problem(name, format!("has shape {:?}, expected one value", entry.shape)));
        }
        // Trainers store whole numbers as they come.
        if let Some(value) = entry.stored.single(self.bytes_of(entry)) {
            return Ok(value);
        }
        if let Some(problem) = entry.stored.problem() {
            return Err(Error::weights(self.file_of(entry), name, problem));
        }
        Ok(f64::from(self.finite_values(name)?[0]))
    }
}
