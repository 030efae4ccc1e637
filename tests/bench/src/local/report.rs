//! Samples to medians, medians to lines: TSV for programs, a table with ratios for people.

use comfy_table::{CellAlignment, Table, presets};

use super::drive::Tally;
use super::pattern::{Direction, Pattern};

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
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Which system.
    pub(crate) system: String,
    /// Which pattern.
    pub(crate) pattern: Pattern,
    /// Each figure's median over the rounds.
    pub(crate) median: Sample,
}

/// The figures of one run, with the CPU seconds of the system and of the client.
pub(crate) fn sample(tally: &Tally, pattern: Pattern, system: f64, client: f64) -> Sample {
    let (operations, seconds) = (tally.operations as f64, tally.elapsed.as_secs_f64());
    let total: u64 = tally.latencies.iter().sum();
    let rank = tally.latencies.len().saturating_sub(1) * 99 / 100;
    let p99 = tally.latencies.get(rank);
    Sample {
        iops: operations / seconds,
        megabytes: operations * pattern.block as f64 / seconds / 1e6,
        mean: total as f64 / operations / 1e3,
        p99: p99.map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e3),
        system_cpu: system / operations * 1e6,
        client_cpu: client / operations * 1e6,
        other_cpu: 0.0,
    }
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
        system,
        pattern,
        median,
    } in lines
    {
        rows.push(format!(
            "{}\t{}\t{}\t{}\t{:.0}\t{:.1}\t{:.1}\t{:.1}\t{:.1}",
            system,
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

/// The results for people. The ratios are to the reference's line of the same pattern.
pub(crate) fn table(lines: &[Line], reference: &str) -> Table {
    let find = |wanted: &dyn Fn(&Line) -> bool| {
        let mut of_reference = lines.iter().filter(|line| line.system == reference);
        of_reference.find(|line| wanted(line))
    };
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
        let reference = find(&|other| other.pattern.name == line.pattern.name);
        // Every write that storaged answers is durable; the reference's is after its flush.
        let durable = find(&|other| is_durable_twin(other.pattern, line.pattern));
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
            line.system.clone(),
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

/// Whether a pattern is the same writes with a flush after each.
fn is_durable_twin(other: Pattern, pattern: Pattern) -> bool {
    pattern.direction == Direction::Write
        && other.direction == Direction::WriteFlush
        && (other.order, other.block, other.depth) == (pattern.order, pattern.block, pattern.depth)
}

fn ratio(ours: f64, reference: Option<f64>) -> String {
    match reference {
        Some(reference) if reference > 0.0 => format!("{:.2}", ours / reference),
        _ => "-".to_owned(),
    }
}
