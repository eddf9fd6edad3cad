//! Tables of results, as Markdown for people, as CSV for spreadsheets and as JSON for programs.

use deepcache::{Error, Result};
use serde_json::{Map, Value};

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Words.
    Text(String),
    /// A count.
    Whole(u64),
    /// A number, which Markdown shows with so many decimals; CSV and JSON keep all digits.
    Number(f64, usize),
    /// Nothing to say here.
    Missing,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Whole(count as u64)
    }
}

impl Cell {
    /// For people.
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.replace('|', "\\|").replace(['\r', '\n'], " "),
            Self::Whole(count) => count.to_string(),
            Self::Number(value, _) if value.is_nan() => "–".to_owned(),
            Self::Number(value, _) if value.is_infinite() => if *value > 0.0 { "∞" } else { "−∞" }.to_owned(),
            Self::Number(value, decimals) => format!("{value:.decimals$}"),
            Self::Missing => "–".to_owned(),
        }
    }

    /// For spreadsheets: RFC 4180, which doubles quotes and quotes what would break a row.
    fn quoted(&self) -> String {
        match self {
            Self::Text(text) if text.contains(['"', ',', '\r', '\n']) || text.trim() != text => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Self::Text(text) => text.clone(),
            Self::Whole(count) => count.to_string(),
            Self::Number(value, _) if value.is_nan() => String::new(),
            Self::Number(value, _) => value.to_string(),
            Self::Missing => String::new(),
        }
    }

    /// For programs. JSON has neither infinities nor other things that are no numbers: they become null.
    fn value(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Whole(count) => (*count).into(),
            Self::Number(value, _) => (*value).into(),
            Self::Missing => Value::Null,
        }
    }
}

/// Named columns and rows of cells.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`Error::Option`] if it has not one cell for each column.
    pub(crate) fn push(&mut self, row: Vec<Cell>) -> Result<()> {
        if row.len() != self.columns.len() {
            let problem = format!("a row has {} cells for {} columns", row.len(), self.columns.len());
            return Err(Error::option("table", problem));
        }
        self.rows.push(row);
        Ok(())
    }

    /// Aligned so that the text itself can be read; columns of numbers lean to the right.
    pub(crate) fn markdown(&self) -> String {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(Cell::shown).collect()).collect();
        let titles: Vec<String> = self.columns.iter().map(|name| Cell::from(name.as_str()).shown()).collect();
        let right: Vec<bool> = (0..titles.len())
            .map(|column| !self.rows.iter().any(|row| matches!(row[column], Cell::Text(_))))
            .collect();
        let widths: Vec<usize> = (0..titles.len())
            .map(|column| {
                let texts = cells.iter().map(|row| &row[column]).chain([&titles[column]]);
                texts.map(|text| text.chars().count()).max().unwrap_or(0).max(3)
            })
            .collect();
        let line = |texts: &[String]| {
            let padded = texts.iter().enumerate().map(|(column, text)| {
                let width = widths[column];
                if right[column] { format!("| {text:>width$} ") } else { format!("| {text:<width$} ") }
            });
            padded.collect::<String>() + "|\n"
        };
        let rule = (0..titles.len()).map(|column| {
            let dashes = "-".repeat(widths[column]);
            if right[column] { format!("| {}: ", &dashes[1..]) } else { format!("| {dashes} ") }
        });
        line(&titles)
            + &rule.collect::<String>()
            + "|\n"
            + &cells.iter().map(|row| line(row)).collect::<String>()
    }

    /// Comma-separated, a line of titles first.
    pub(crate) fn csv(&self) -> String {
        let titles: Vec<Cell> = self.columns.iter().map(|name| name.as_str().into()).collect();
        let line = |row: &Vec<Cell>| row.iter().map(Cell::quoted).collect::<Vec<_>>().join(",") + "\n";
        std::iter::once(&titles).chain(&self.rows).map(line).collect()
    }

    /// A list with one object for each row, its keys the titles of the columns.
    pub(crate) fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| {
            let pairs = self.columns.iter().cloned().zip(row.iter().map(Cell::value));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        self.rows.iter().map(object).collect()
    }
}
