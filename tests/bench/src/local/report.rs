//! Samples to medians, medians to lines: TSV for programs, a table with ratios for people.

use comfy_table::{CellAlignment, Table, presets};

use super::pattern::{Direction, Pattern};
use super::system::Kind;

/// One system's figures for one pattern in one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Operations a second.
    pub(crate) iops: f64,
    /// Million bytes a second.
    pub(crate) megabytes: f64,
    /// Mean latency, in microseconds.
    pub(crate) mean: f64,
    /// The latency that 99 of 100 operations do not exceed, in microseconds.
    pub(crate) p99: f64,
    /// CPU of all the system's processes for one operation, in microseconds.
    pub(crate) system_cpu: f64,
    /// CPU of the client for one operation, in microseconds.
    pub(crate) client_cpu: f64,
    /// What neither of the two used of the machine's CPUs meanwhile, in per cent of one core: the
    /// kernel's threads, and other people's work.
    pub(crate) other_cpu: f64,
}

/// One system's median for one pattern.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Which system.
    pub(crate) kind: Kind,
    /// Which pattern.
    pub(crate) pattern: Pattern,
    /// Each figure's median over the rounds.
    pub(crate) median: Sample,
}

/// Takes each figure's median by itself.
pub(crate) fn median(samples: &[Sample]) -> Sample {
    Sample {
        iops: middle(samples, |sample| sample.iops),
        megabytes: middle(samples, |sample| sample.megabytes),
        mean: middle(samples, |sample| sample.mean),
        p99: middle(samples, |sample| sample.p99),
        system_cpu: middle(samples, |sample| sample.system_cpu),
        client_cpu: middle(samples, |sample| sample.client_cpu),
        other_cpu: middle(samples, |sample| sample.other_cpu),
    }
}

fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}

/// The results for programs, with a head line.
pub(crate) fn tsv(lines: &[Line]) -> String {
    let head = "system\tpattern\tbs\tqd\tiops\tMBps\tmean_us\tp99_us\tcpu_us_per_op";
    let mut rows = vec![head.to_owned()];
    for Line {
        kind,
        pattern,
        median,
    } in lines
    {
        rows.push(format!(
            "{}\t{}\t{}\t{}\t{:.0}\t{:.1}\t{:.1}\t{:.1}\t{:.1}",
            kind.name(),
            pattern.name,
            pattern.block,
            pattern.depth,
            median.iops,
            median.megabytes,
            median.mean,
            median.p99,
            median.system_cpu,
        ));
    }
    rows.join("\n") + "\n"
}

/// The results for people. The ratios are to qemu-storage-daemon's line of the same pattern.
pub(crate) fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "pattern",
        "system",
        "IOPS",
        "MB/s",
        "mean us",
        "p99 us",
        "CPU us/op",
        "IOPS ratio",
        "CPU ratio",
        "durable ratio",
        "client us/op",
        "other CPU %",
    ]);
    for line in lines {
        let reference = find(lines, |other| other.pattern.name == line.pattern.name);
        // Every write that storaged answers is durable; the reference's is after its flush.
        let durable = durable_twin(lines, line.pattern);
        let Sample {
            iops,
            megabytes,
            mean,
            p99,
            system_cpu,
            client_cpu,
            other_cpu,
        } = line.median;
        table.add_row([
            line.pattern.name.to_owned(),
            line.kind.name().to_owned(),
            format!("{iops:.0}"),
            format!("{megabytes:.1}"),
            format!("{mean:.1}"),
            format!("{p99:.1}"),
            format!("{system_cpu:.1}"),
            ratio(iops, reference.map(|line| line.median.iops)),
            ratio(system_cpu, reference.map(|line| line.median.system_cpu)),
            ratio(iops, durable.map(|line| line.median.iops)),
            format!("{client_cpu:.1}"),
            format!("{other_cpu:.0}"),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The reference's line for the same writes with a flush after each.
fn durable_twin(lines: &[Line], pattern: Pattern) -> Option<&Line> {
    if pattern.direction != Direction::Write {
        return None;
    }
    find(lines, |other| {
        other.pattern.direction == Direction::WriteFlush
            && (other.pattern.order, other.pattern.block, other.pattern.depth)
                == (pattern.order, pattern.block, pattern.depth)
    })
}

fn find(lines: &[Line], wanted: impl Fn(&Line) -> bool) -> Option<&Line> {
    lines.iter().find(|line| line.kind == Kind::Qemu && wanted(line))
}

fn ratio(ours: f64, reference: Option<f64>) -> String {
    match reference {
        Some(reference) if reference > 0.0 => format!("{:.2}", ours / reference),
        _ => "-".to_owned(),
    }
}
