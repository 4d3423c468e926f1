//! The plots of a record, as SVG. Their text and lines are of a middle grey and have no
//! background, so that they are readable on a light page and on a dark one.

use std::path::Path;

use codex_bench::Outcome;
use codex_bench::report::tables::value;
use codex_bench::report::{Cell, Group, Measured, Row, Unit};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A chart with a line for each store.
struct Panel<'a> {
    title: String,
    unit: Unit,
    /// The cases, which are the places on the horizontal axis, and their names there.
    cases: Vec<(&'a str, String)>,
    /// The figure of a cell that is shown.
    of: fn(&Cell) -> f64,
}

/// Draws a row: lines if its cases are numbers of writers or of keys, else a bar for each store and
/// case.
pub(crate) fn draw(row: &Row, path: &Path) -> Outcome {
    let tables = row.tables();
    if row.name == "growth" {
        let panels = tables.into_iter().map(|(head, cases)| {
            let shown = |case: &str| case.rsplit(": ").next().unwrap_or(case).to_owned();
            Panel {
                title: format!("{head}, by entries"),
                unit: unit(row, &cases),
                cases: cases.into_iter().map(|case| (case, shown(case))).collect(),
                of: Cell::median,
            }
        });
        return lines(row, &panels.collect::<Vec<_>>(), path);
    }
    if row.cases().iter().all(|case| case.contains(" writer")) {
        let cases = || {
            let shown = |case: &str| case.split(' ').next().unwrap_or(case).to_owned();
            row.cases().into_iter().map(|case| (case, shown(case))).collect()
        };
        #[expect(clippy::cast_precision_loss, reason = "a time below 2^52 ns")]
        let p99 = |cell: &Cell| cell.latency.map_or(f64::NAN, |[_, p99]| p99 as f64);
        let panels = [
            Panel {
                title: "a second, by writers".to_owned(),
                unit: Unit::PerSecond,
                cases: cases(),
                of: Cell::median,
            },
            Panel {
                title: "99th percentile of a call, by writers".to_owned(),
                unit: Unit::Ns,
                cases: cases(),
                of: p99,
            },
        ];
        return lines(row, &panels, path);
    }
    bars(row, path)
}

/// Draws charts of lines, two beside each other, with one legend.
fn lines(row: &Row, panels: &[Panel<'_>], path: &Path) -> Outcome {
    const COLUMNS: usize = 2;
    let in_height = panels.len().div_ceil(COLUMNS);
    let height = if in_height == 1 { 360 } else { 280 * u32::try_from(in_height)? };
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    let (charts, legend) = root.split_horizontally(WIDTH - 170);
    for (area, panel) in charts.split_evenly((in_height, COLUMNS)).iter().zip(panels) {
        chart(row, area, panel)?;
    }
    for (at, store) in row.stores.iter().enumerate() {
        let y = 40 + 22 * i32::try_from(at)?;
        legend.draw(&PathElement::new([(8, y), (30, y)], stroke(row, at)))?;
        legend.draw(&Text::new(shown(store), (36, y), text(13, HPos::Left)))?;
    }
    Ok(root.present()?)
}

fn chart(row: &Row, area: &Area<'_>, panel: &Panel<'_>) -> Outcome {
    let Panel { title, unit, cases, of } = panel;
    let cells =
        cases.iter().flat_map(|(case, _)| row.cells.iter().filter(move |c| c.case == *case));
    let all = cells.map(of).filter(|figure| *figure > 0.0);
    let (low, high) = all.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let last = u32::try_from(cases.len())?.saturating_sub(1);
    // The labels are powers of the base: at least two lie between the figures.
    let base = if high < 100.0 * low { 2.0 } else { 10.0 };
    let figures = (low * 0.7..high * 1.4).log_scale().base(base);
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(14, HPos::Left))
        .margin(8)
        .x_label_area_size(26)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..f64::from(last), figures)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(cases.len())
        .x_label_formatter(&|x| {
            let case = cases.iter().zip(0_u32..).find(|(_, at)| (f64::from(*at) - x).abs() < 0.1);
            case.map_or(String::new(), |((_, shown), _)| shown.clone())
        })
        .y_labels(6)
        .y_label_formatter(&|y| value(*y, *unit))
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.3))
        .light_line_style(TRANSPARENT)
        .label_style(text(12, HPos::Left))
        .draw()?;
    for (at, store) in row.stores.iter().enumerate() {
        let points = cases.iter().zip(0_u32..).filter_map(|((case, _), x)| {
            let y = row.cell(&store.name, case).map(of)?;
            (y > 0.0).then_some((f64::from(x), y))
        });
        let points: Vec<_> = points.collect();
        let dots = points.iter().map(|point| Circle::new(*point, 3, stroke(row, at).filled()));
        chart.draw_series(dots)?;
        chart.draw_series(LineSeries::new(points, stroke(row, at)))?;
    }
    Ok(())
}

/// Returns the unit of some cases.
fn unit(row: &Row, cases: &[&str]) -> Unit {
    let cell = row.cells.iter().find(|cell| cases.contains(&&*cell.case));
    cell.map_or(Unit::Ns, |cell| cell.unit)
}

/// A panel for each case, with a bar for each store.
fn bars(row: &Row, path: &Path) -> Outcome {
    const COLUMNS: usize = 3;
    let cases = row.cases();
    let bar = 19;
    let names = 132;
    let height = 34 + bar * i32::try_from(row.stores.len())?;
    let (lines, columns) = (cases.len().div_ceil(COLUMNS), cases.len().min(COLUMNS));
    let size = (WIDTH, u32::try_from(height)? * u32::try_from(lines)?);
    let root = SVGBackend::new(path, size).into_drawing_area();
    for (area, case) in root.split_evenly((lines, columns)).iter().zip(&cases) {
        let cells = || row.stores.iter().map(|store| row.cell(&store.name, case));
        let most = cells().flatten().map(Cell::median).fold(0.0, f64::max);
        let unit = unit(row, &[case]);
        let better = if unit == Unit::PerSecond { "more is better" } else { "less is better" };
        let title = format!("{case} ({better})");
        area.draw(&Text::new(title, (8, 16), text(13, HPos::Left)))?;
        let width = f64::from(area.dim_in_pixel().0) - f64::from(names) - 70.0;
        for (at, (store, cell)) in row.stores.iter().zip(cells()).enumerate() {
            let top = 28 + bar * i32::try_from(at)?;
            let middle = top + bar / 2 - 1;
            let name = Text::new(shown(store), (names - 6, middle), text(12, HPos::Right));
            area.draw(&name)?;
            let Some(cell) = cell else { continue };
            #[expect(clippy::cast_possible_truncation, reason = "a number of pixels")]
            let end = names + (width * cell.median() / most).max(1.0) as i32;
            let corners = [(names, top), (end, top + bar - 4)];
            area.draw(&Rectangle::new(corners, stroke(row, at).filled()))?;
            let figure = value(cell.median(), cell.unit);
            area.draw(&Text::new(figure, (end + 5, middle), text(12, HPos::Left)))?;
        }
    }
    Ok(root.present()?)
}

/// Returns the style of a store: ours bold, the limits grey.
fn stroke(row: &Row, at: usize) -> ShapeStyle {
    let Some(store) = row.stores.get(at) else { return GREY.into() };
    let is_alike = |group| match store.group {
        Group::Other | Group::Weaker => matches!(group, Group::Other | Group::Weaker),
        same => group == same,
    };
    let before = row.stores.iter().take(at).filter(|other| is_alike(other.group)).count();
    let shade = |colors: &[RGBColor]| colors.get(before % colors.len()).copied().unwrap_or(GREY);
    match store.group {
        Group::Ours => shade(&OURS).stroke_width(3),
        Group::Other | Group::Weaker => shade(&OTHERS).stroke_width(2),
        Group::Limit => shade(&[GREY, RGBColor(150, 160, 170)]).stroke_width(1),
    }
}

/// Returns the name of a store, with the mark of the tables if it promises less.
fn shown(store: &Measured) -> String {
    let mark = if store.group == Group::Weaker { " †" } else { "" };
    format!("{}{mark}", store.name)
}

fn text(size: u32, side: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&GREY).pos(Pos::new(side, VPos::Center))
}

const WIDTH: u32 = 1000;
const GREY: RGBColor = RGBColor(118, 131, 144);
const OURS: [RGBColor; 4] = [
    RGBColor(218, 54, 51),
    RGBColor(232, 110, 90),
    RGBColor(240, 150, 110),
    RGBColor(200, 120, 140),
];
const OTHERS: [RGBColor; 7] = [
    RGBColor(64, 132, 230),
    RGBColor(70, 160, 80),
    RGBColor(190, 140, 30),
    RGBColor(160, 110, 220),
    RGBColor(40, 165, 175),
    RGBColor(150, 110, 80),
    RGBColor(200, 90, 150),
];
