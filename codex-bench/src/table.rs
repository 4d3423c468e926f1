//! The tables of the reports.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// Returns a table with these column heads. The first column is aligned left, the others right.
pub fn new<const N: usize>(heads: [&str; N]) -> Table {
    let mut table = Table::new();
    let line = LineStyle::none().fill('-').junction('-');
    table.load_style(TableStyle::new().header_separator(line)).set_header(heads);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = super::new(["name", "n"]);
        table.add_row(["a", "1,000"]);
        let lines: Vec<String> = table.lines().collect();
        assert_eq!(lines, [" name       n ", "--------------", " a      1,000 "]);
    }
}
