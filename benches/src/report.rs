//! What a run has shown: tables for people, an array for programs, a record for the repository.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::failure::{Failure, Trying};
use crate::figures::{Figure, Metric};
use crate::peers::Peer;
use crate::rounds::{Cell, Plan, Results, Samples, cell_name, median, median_of};

/// Everything that was measured, medians of the rounds.
#[must_use]
pub fn measured(results: &BTreeMap<Cell, Samples>) -> String {
    let mut text = format!(
        "{:<24} {:<20} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>8}\n",
        "workload",
        "",
        "GB/s",
        "stmt/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "CPU s/GB",
        "µs/stmt",
        "busy",
        "KiB/sess"
    );
    for (cell, samples) in results {
        for peer in samples.keys() {
            let of = |metric| median_of(samples, *peer, metric);
            let rounds = || samples.get(peer).into_iter().flatten();
            let latency = |of: fn(&crate::ends::client::Outcome) -> u64| {
                median(rounds().map(|sample| of(&sample.outcome) as f64 / 1e3))
            };
            let proxied = |value: f64, digits: usize| match peer {
                Peer::Direct => "-".to_owned(),
                _ => format!("{value:.digits$}"),
            };
            let _ = writeln!(
                text,
                "{:<24} {:<20} {:>9.3} {:>10.0} {:>9.1} {:>9.1} {:>9.1} {:>9} {:>9} {:>6} {:>8}",
                cell_name(*cell),
                peer.name(),
                of(Metric::Throughput),
                of(Metric::Statements),
                latency(|outcome| outcome.p50),
                latency(|outcome| outcome.p99),
                latency(|outcome| outcome.p999),
                proxied(of(Metric::CpuPerGb), 3),
                proxied(of(Metric::CpuPerStatement), 1),
                proxied(median(rounds().map(|sample| sample.busy)) * 100.0, 0),
                proxied(of(Metric::Resident), 1),
            );
        }
    }
    text
}

/// System calls, where they were counted.
#[must_use]
pub fn system_calls(results: &Results) -> String {
    let mut text = String::new();
    for (cell, peer, outcome, calls) in &results.calls {
        let all = calls.all() as f64;
        let _ = writeln!(
            text,
            "system calls, {} {}: {:.2} per read that brought something ({:.0} bytes each), {:.2} per statement; {}",
            cell_name(*cell),
            peer.name(),
            all / calls.received().max(1) as f64,
            outcome.bytes as f64 / calls.received().max(1) as f64,
            all / outcome.statements.max(1) as f64,
            calls.most(6)
        );
    }
    text
}

/// The judged figures.
#[must_use]
pub fn judged(figures: &[Figure]) -> String {
    let mut text = String::new();
    let limit = |limit: Option<f64>| limit.map_or("-".to_owned(), |limit| format!("{limit:.2}"));
    for figure in figures {
        let verdict = match (figure.floor, figure.ok, figure.aimed) {
            (None, _, _) => "not judged",
            (_, false, _) => "BELOW THE FLOOR",
            (_, true, false) => "ok, aim missed",
            _ => "ok",
        };
        let _ = writeln!(
            text,
            "{verdict:<16} {:>9.3} : {:>9.3} = {:>6.3}  floor {:>6} aim {:>6}  {}",
            figure.weir,
            figure.peer,
            figure.ratio,
            limit(figure.floor),
            limit(figure.aim),
            figure.figure
        );
    }
    text
}

/// Writes `benches/record/DATE-COMMIT.json`; gives its path.
///
/// # Errors
/// It cannot be written, or this is no checkout.
pub fn record(plan: &Plan, haproxy: &str, results: &Results, figures: &[Figure]) -> Result<PathBuf, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output();
        let output = output.trying("git")?;
        Ok::<_, Failure>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = !git(&["status", "--porcelain"])?.is_empty();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let record = json!({
        "date": date,
        "commit": commit,
        "changed": changed,
        "machine": machine(),
        "haproxy": haproxy,
        "rounds": plan.rounds,
        "size": format!("{:?}", plan.size).to_lowercase(),
        "figures": figures,
        "measured": all(&results.cells),
        "system_calls": system_calls(results).lines().collect::<Vec<_>>(),
    });
    let directory = root.join("record");
    std::fs::create_dir_all(&directory).trying(directory.display())?;
    let path = directory.join(format!("{date}-{commit}.json"));
    let text = serde_json::to_string_pretty(&record).trying("record")?;
    std::fs::write(&path, text + "\n").trying(path.display())?;
    Ok(path)
}

/// Every peer's medians in every cell, each with its least and most.
fn all(results: &BTreeMap<Cell, Samples>) -> Value {
    let metrics = [
        ("cpu_s_per_gb", Metric::CpuPerGb),
        ("cpu_us_per_statement", Metric::CpuPerStatement),
        ("gb_per_s", Metric::Throughput),
        ("statements_per_s", Metric::Statements),
        ("added_p50_us", Metric::AddedP50),
        ("added_p99_us", Metric::AddedP99),
        ("resident_kib_per_session", Metric::Resident),
    ];
    let mut rows = Vec::new();
    for (cell, samples) in results {
        for (peer, rounds) in samples {
            let mut row = json!({
                "workload": cell_name(*cell),
                "peer": peer.name(),
                "busy": median(rounds.iter().map(|sample| sample.busy)),
                "p50_us": median(rounds.iter().map(|sample| sample.outcome.p50 as f64 / 1e3)),
                "p99_us": median(rounds.iter().map(|sample| sample.outcome.p99 as f64 / 1e3)),
                "p999_us": median(rounds.iter().map(|sample| sample.outcome.p999 as f64 / 1e3)),
            });
            for (name, metric) in metrics {
                let values = metric.values(samples, *peer);
                let finite = || values.iter().copied().filter(|value| value.is_finite());
                if let (Some(row), Some(least)) = (row.as_object_mut(), finite().reduce(f64::min)) {
                    let most = finite().reduce(f64::max);
                    row.insert(name.to_owned(), json!([median(finite()), least, most]));
                }
            }
            rows.push(row);
        }
    }
    rows.into()
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let cpu = read("/proc/cpuinfo");
    json!({
        "cpu": field(&cpu, "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").trim(),
    })
}
