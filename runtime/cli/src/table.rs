//! Aligned columns of text.

use crate::printable::printable;

/// Most characters of a cell. Longer text is shortened in the middle, where names differ least.
const MAX_CELL: usize = 56;
const GAP: &str = "  ";

/// Alignment of a cell in its column.
#[derive(Clone, Copy)]
pub enum Align {
    Left,
    Right,
}

/// Columns of fixed width, for rows that are printed one by one.
pub struct Columns(Vec<(Align, usize)>);

impl Columns {
    /// Columns of these widths, at most [`MAX_CELL`] each.
    pub fn new(columns: impl IntoIterator<Item = (Align, usize)>) -> Self {
        Self(columns.into_iter().map(|(align, width)| (align, width.min(MAX_CELL))).collect())
    }

    /// One row as a line, including the line feed.
    pub fn line<T: AsRef<str>>(&self, cells: &[T]) -> String {
        let padded = self.0.iter().zip(cells).map(|(&(align, width), cell)| {
            let cell = fit(cell.as_ref());
            match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            }
        });
        let line = padded.collect::<Vec<_>>().join(GAP);
        format!("{}\n", line.trim_end())
    }
}

/// A table whose columns are as wide as their widest cell.
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with column titles.
    pub fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        Self {
            aligns: columns.iter().map(|c| c.1).collect(),
            rows: vec![columns.iter().map(|c| c.0.to_owned()).collect()],
        }
    }

    /// A table without column titles.
    pub fn untitled<const N: usize>(aligns: [Align; N]) -> Self {
        Self { aligns: aligns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The whole table, with each line prefixed by `indent`.
    pub fn render(&self, indent: &str) -> String {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| fit(cell).chars().count()).max().unwrap_or(0)
        };
        let columns = Columns::new(self.aligns.iter().enumerate().map(|(i, &align)| (align, width(i))));
        self.rows.iter().map(|row| format!("{indent}{}", columns.line(row))).collect()
    }
}

/// Shortens a cell to one line of at most [`MAX_CELL`] characters.
fn fit(cell: &str) -> String {
    let cell = printable(cell);
    let length = cell.chars().count();
    if length <= MAX_CELL {
        return cell.into_owned();
    }
    let head = MAX_CELL / 2;
    let tail = MAX_CELL - head - 1;
    cell.chars().take(head).chain(['…']).chain(cell.chars().skip(length - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([("name", Align::Left), ("ms", Align::Right)]);
        table.row(["a".into(), "10.5".into()]);
        table.row(["longer".into(), "2".into()]);
        assert_eq!(table.render(" "), " name      ms\n a       10.5\n longer     2\n");
    }

    #[test]
    fn long_and_hostile_cells_stay_in_their_line() {
        let cell = fit(&format!("start\n{}end", "x".repeat(500)));
        assert_eq!(cell.chars().count(), MAX_CELL);
        assert!(cell.starts_with("start xxx") && cell.ends_with("xxxend"));
        assert_eq!(fit("ok"), "ok");
    }
}
