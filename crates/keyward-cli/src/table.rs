//! Tables for people: a header, and columns that line up.

use keyward_diag::plain;

/// Longest cell, in characters.
const CELL_MAX: usize = 100;

/// Lays out rows below a header. Cells are made safe to print, cut at 100 characters, and padded with blanks; an empty one
/// becomes `-`. Rows may be shorter than the header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let head = header.iter().map(|h| h.to_uppercase()).collect::<Vec<_>>();
    let safe = |cell: &String| if cell.is_empty() { "-".to_owned() } else { plain(cell, CELL_MAX) };
    let body: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(safe).collect()).collect();
    let mut widths = vec![0; header.len()];
    for row in std::iter::once(&head).chain(&body) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in std::iter::once(&head).chain(&body) {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Lays out names and what stands behind them, one pair a line.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, what)| format!("{name:<width$}  {}\n", plain(what, 400))).collect()
}

/// `1 run`, `2 runs`.
pub(crate) fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_cannot_break_the_screen() {
        let rows = vec![vec!["a".into(), "\u{1b}[2J".into()], vec!["schön".into(), String::new()]];
        assert_eq!(table(&["app", "x"], &rows), "APP    X\na      \\u{1b}[2J\nschön  -\n");
        assert_eq!(table(&["app"], &[]), "APP\n");
        assert!(table(&["x"], &[vec!["y".repeat(5_000)]]).len() < 200);
    }

    #[test]
    fn pairs_line_up() {
        assert_eq!(pairs(&[("a", "1\n".into()), ("long", "2".into())]), "a     1\\u{a}\nlong  2\n");
        assert_eq!((count(1, "run"), count(0, "run")), ("1 run".into(), "0 runs".into()));
    }
}
