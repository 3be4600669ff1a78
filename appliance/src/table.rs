//! Aligned tables for people: text to the left, numbers to the right, units in the heads.

use std::fmt;

/// A column: its head, and whether its cells are numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Aligned left.
    Text(&'static str),
    /// Aligned right.
    Number(&'static str),
}

impl Column {
    fn head(self) -> &'static str {
        match self {
            Self::Text(head) | Self::Number(head) => head,
        }
    }
}

/// Rows under heads; each row has one cell per column.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// An empty table.
    pub(crate) fn new(columns: [Column; N]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    fn widths(&self) -> [usize; N] {
        let mut widths = self.columns.map(|column| column.head().chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let heads = self.columns.map(|column| column.head().to_owned());
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), column) in row.iter().zip(widths).zip(self.columns) {
                match column {
                    Column::Text(_) => line.push_str(&format!("{cell:<width$}  ")),
                    Column::Number(_) => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A whole number with thin groups of three: `1 000 000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Bytes with a binary unit: `812 B`, `1.5 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    // Tenths of the unit in integers, so that the number shown never depends on float rounding.
    let mut tenths = u128::from(number) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!(
        "{}.{} {}",
        tenths / 10,
        tenths % 10,
        UNITS.get(unit).unwrap_or(&"?")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new([Column::Text("account"), Column::Number("rows")]);
        table.push(["demo".to_owned(), "1 000".to_owned()]);
        assert_eq!(table.to_string(), "account   rows\ndemo     1 000\n");
    }

    #[test]
    fn units_are_readable() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1 000", "1 234 567"]
        );
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 20, 5 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB"]
        );
    }
}
