//! `cargo sim`: worlds from seeds, or from a script.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use holdfast_tests::cases::Case;
use holdfast_tests::world::{chaos, script, shrink};

/// Runs the core in virtual worlds.
#[derive(Parser)]
struct Arguments {
    /// Live through the world of this seed and print its event log. If it fails, its script is shrunk to target/sim/SEED.txt.
    seed: Option<u64>,
    /// Live through this many worlds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed of many.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// So many nodes beside the gateway in every world; the seed decides otherwise.
    #[arg(long)]
    nodes: Option<u64>,
    /// Run a scenario file and print its event log.
    #[arg(long)]
    replay: Option<PathBuf>,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    if let Some(file) = arguments.replay {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let input = Case::parse(&text)?.input;
        let story = script::tell(&input)?;
        out.write_all(story.log.concat().as_bytes())?;
        if let Some(failure) = story.failure {
            bail!("{failure}");
        }
        writeln!(out, "{}", story.end.err().unwrap_or_else(|| "all is well".to_owned()))?;
        return Ok(());
    }
    if let Some(seed) = arguments.seed {
        let story = chaos::live_with(seed, arguments.nodes);
        out.write_all(story.log.concat().as_bytes())?;
        if let Some(failure) = story.failure {
            writeln!(out, "seed {seed}: {failure}; shrinking")?;
            let file = keep(seed, &shrink::shrink(&chaos::script(seed, arguments.nodes)))?;
            bail!("seed {seed}: {failure}; cargo sim --replay {}", file.display());
        }
        writeln!(out, "seed {seed}: all is well")?;
        return Ok(());
    }
    let seeds = arguments.seeds.unwrap_or(1_000);
    let began = Instant::now();
    let (mut failed, mut virtual_time) = (0_u64, Duration::ZERO);
    for seed in arguments.from..arguments.from + seeds {
        let story = chaos::live_with(seed, arguments.nodes);
        virtual_time += story.time;
        if let Some(failure) = story.failure {
            failed += 1;
            writeln!(out, "seed {seed}: {failure}")?;
        }
    }
    // Of the processor's time, where Linux tells it: the machine may have other work.
    let real = processor_time().unwrap_or_else(|| began.elapsed());
    let ratio = virtual_time.as_secs_f64() / real.as_secs_f64().max(0.001);
    writeln!(
        out,
        "{seeds} worlds, {:.1} virtual hours in {:.1} s of a processor: {ratio:.0} times real time; {failed} failed",
        virtual_time.as_secs_f64() / 3600.0,
        real.as_secs_f64()
    )?;
    if failed > 0 {
        bail!("{failed} of {seeds} worlds failed; cargo sim SEED prints one");
    }
    Ok(())
}

/// How long this process has run on a processor: proc(5), /proc/self/stat, fields 14 and 15, in hundredths of a second.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(14)? + ticks(15)?)))
}

/// Writes down a script that fails, and its log.
fn keep(seed: u64, short: &str) -> Result<PathBuf> {
    let story = script::tell(short)?;
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/sim");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{seed}.txt"));
    let failure = story.failure.unwrap_or_default();
    std::fs::write(&file, format!("Seed {seed}: {failure}\n\n{short}----\n{}", story.log.concat()))?;
    Ok(file)
}
