//! The shrinker: a failing script becomes a short one that fails in the same way.
//!
//! It deletes lines, many at once at first and then one by one, shortens what lasts, and makes the world smaller, as long as
//! the same thing goes wrong. A script that names what is not there any more is no script, and not taken.

use super::script;

/// How often a script may be run at most.
const TRIES: u32 = 600;

/// A script that fails, and how often others may still be tried.
struct Shrinker {
    kind: String,
    lines: Vec<String>,
    tries: u32,
}

/// Makes a failing script shorter. One that does not fail is left as it is.
pub fn shrink(script: &str) -> String {
    let lines: Vec<String> = script.lines().map(str::to_owned).collect();
    let Some(kind) = failure(&lines) else { return script.to_owned() };
    let mut shrinker = Shrinker { kind, lines, tries: TRIES };
    loop {
        let before = shrinker.lines.clone();
        shrinker.delete();
        shrinker.shorten();
        shrinker.narrow();
        if shrinker.lines == before || shrinker.tries == 0 {
            return shrinker.lines.join("\n") + "\n";
        }
    }
}

fn failure(lines: &[String]) -> Option<String> {
    script::tell(&lines.join("\n")).ok()?.failure.map(|failure| kind(&failure))
}

/// What failed, without names: the invariant; of a world that did not heal, also what is wrong with it.
pub fn kind(failure: &str) -> String {
    let Some((name, rest)) = failure.split_once(": ") else { return failure.to_owned() };
    if name != "not healed" {
        return name.to_owned();
    }
    let mut words = rest.split_whitespace().skip(1);
    format!("{name}: {} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

impl Shrinker {
    /// Takes the other script if it fails in the same way.
    fn takes(&mut self, other: Vec<String>) -> bool {
        if self.tries == 0 || other == self.lines {
            return false;
        }
        self.tries -= 1;
        let same = failure(&other).as_ref() == Some(&self.kind);
        if same {
            self.lines = other;
        }
        same
    }

    /// What makes a world unwell by its absence is not deleted, nor the world itself.
    fn stays(&self, line: &str) -> bool {
        line.starts_with("world")
            || ((line == "heal" || line.starts_with("settle"))
                && (self.kind.starts_with("not healed") || self.kind == "no VM in limbo"))
    }

    fn delete(&mut self) {
        let mut size = self.lines.len().next_power_of_two();
        while size > 0 {
            let mut at = 0;
            while at < self.lines.len() {
                let end = at + size;
                let kept = |(n, line): &(usize, &String)| !(at..end).contains(n) || self.stays(line);
                let other = self.lines.iter().enumerate().filter(kept).map(|(_, line)| line.clone()).collect();
                if !self.takes(other) {
                    at = end;
                }
            }
            size /= 2;
        }
    }

    /// Halves times, and rounds them; two that follow each other become one.
    fn shorten(&mut self) {
        let mut merged: Vec<String> = Vec::new();
        for line in &self.lines {
            match (merged.last().and_then(|last| runs(last)), runs(line)) {
                (Some(one), Some(other)) => {
                    merged.pop();
                    merged.push(format!("run {}ms", one + other));
                }
                _ => merged.push(line.clone()),
            }
        }
        self.takes(merged);
        for at in 0..self.lines.len() {
            for change in [round, halve] {
                while let Some(line) = self.lines.get(at).and_then(|line| change(line)) {
                    let mut other = self.lines.clone();
                    other.splice(at..=at, [line]);
                    if !self.takes(other) {
                        break;
                    }
                }
            }
        }
    }

    /// Fewer nodes, VMs and networks.
    fn narrow(&mut self) {
        for what in ["nodes", "vms", "links"] {
            while let Some(line) = self.lines.first().and_then(|line| fewer(line, what)) {
                let mut other = self.lines.clone();
                other.splice(0..1, [line]);
                if !self.takes(other) {
                    break;
                }
            }
        }
    }
}

/// How many milliseconds a line lets pass, if it does nothing else.
fn runs(line: &str) -> Option<u64> {
    let time = line.strip_prefix("run ")?;
    let seconds = || time.strip_suffix('s').and_then(|time| time.parse::<u64>().ok());
    time.strip_suffix("ms").map_or_else(|| Some(seconds()? * 1000), |time| time.parse().ok())
}

/// A line's last word that is a number of milliseconds, changed.
fn last(line: &str, change: impl Fn(u64) -> Option<String>) -> Option<String> {
    let (head, time) = line.rsplit_once(' ')?;
    let millis: u64 = time.strip_suffix("ms")?.parse().ok()?;
    (!head.starts_with("settle")).then(|| change(millis).map(|time| format!("{head} {time}")))?
}

fn round(line: &str) -> Option<String> {
    last(line, |millis| (millis > 500).then(|| format!("{}s", millis.div_ceil(1000))))
}

fn halve(line: &str) -> Option<String> {
    if let Some((head, time)) = line.rsplit_once(' ')
        && let Some(seconds) = time.strip_suffix('s').and_then(|seconds| seconds.parse::<u64>().ok())
    {
        let lasts = head == "run" || head.starts_with("stall");
        return (lasts && seconds > 1).then(|| format!("{head} {}s", seconds / 2));
    }
    last(line, |millis| (millis > 1).then(|| format!("{}ms", millis / 2)))
}

fn fewer(line: &str, what: &str) -> Option<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|word| *word == what)?.checked_sub(1)?;
    let count: u8 = words.get(at)?.parse().ok()?;
    let count = count.checked_sub(1).filter(|count| *count > 0)?.to_string();
    let replaced = words.iter().enumerate().map(|(n, word)| if n == at { count.as_str() } else { word });
    Some(replaced.collect::<Vec<&str>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is needed is that the host of x0 is cut and that the switch lies for as long as it takes to shoot it.
    #[test]
    fn only_what_is_needed_stays() {
        let script = "world 4 nodes 2 vms 2 links\nclock node1 200 ppm\npower on all\nrun 41000ms\nput node4 into standby\n\
                      pdu lies\nrun 7s\ncut the host of x0\nstall node4 100ms\nrun 60s\nheal\nsettle 240s\n";
        let short = shrink(script);
        assert_eq!(kind(&script::tell(&short).unwrap().failure.unwrap()), "fenced before recovered");
        let commands: Vec<&str> = short.lines().filter(|line| !line.starts_with("run")).collect();
        assert_eq!(commands[1..], ["power on all", "pdu lies", "cut the host of x0"], "{short}");
        assert!(!short.contains("41000ms"), "{short}");
    }

    #[test]
    fn lines_get_shorter() {
        assert_eq!(round("run 1200ms").unwrap(), "run 2s");
        assert_eq!(halve("run 9s").unwrap(), "run 4s");
        assert_eq!(halve("stall node1 1s"), None);
        assert_eq!(halve("settle 240s"), None);
        assert_eq!(fewer("world 3 nodes 2 vms seed 7", "nodes").unwrap(), "world 2 nodes 2 vms seed 7");
        assert_eq!(kind("not healed: node7 is inquorate"), "not healed: is inquorate");
    }
}
