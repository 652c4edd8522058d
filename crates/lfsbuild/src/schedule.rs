//! Running many steps at once: as soon as all that a step needs is there and a job is free, longest way to the end first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::jobserver::Jobserver;
use crate::plan::Step;
use crate::progress::Event;
use crate::step::Context;
use crate::store::Record;

/// Runs `steps`; what they need and is not among them must be in the store. With `keep_packages` they are
/// finished already, and built again for their tests alone. `finished` is called after each, in this thread.
pub(crate) fn run(
    context: &Context<'_>,
    jobserver: &Jobserver,
    steps: &[&Step],
    estimates: &BTreeMap<String, Duration>,
    keep_going: bool,
    keep_packages: bool,
    mut finished: impl FnMut(&Record),
) -> Result<()> {
    let names: BTreeSet<&str> = steps.iter().map(|s| s.name.as_str()).collect();
    let mut waiting: BTreeMap<&str, BTreeSet<&str>> = steps
        .iter()
        .map(|s| {
            let needs = s.needs.iter().filter_map(|(need, _)| names.get(need.step.as_str()).copied());
            (s.name.as_str(), needs.collect())
        })
        .collect();
    let priorities = priorities(steps, estimates);
    let by_name: BTreeMap<&str, &Step> = steps.iter().map(|s| (s.name.as_str(), *s)).collect();
    let mut errors = Vec::new();
    let mut running = 0usize;
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel::<(&str, Result<Record>, Duration)>();
        loop {
            let stop = cancelled() || (!errors.is_empty() && !keep_going);
            let next = waiting
                .iter()
                .filter(|(_, needs)| needs.is_empty() && !stop)
                .map(|(name, _)| *name)
                .max_by_key(|name| (priorities.get(name).copied().unwrap_or_default(), std::cmp::Reverse(*name)));
            match next {
                None if running == 0 => break,
                Some(name) if jobserver.try_acquire() => {
                    waiting.remove(name);
                    running += 1;
                    let send = send.clone();
                    let Some(step) = by_name.get(name).copied() else {
                        continue;
                    };
                    context.progress.event(Event::StepStarted {
                        step: name,
                        estimate: estimates.get(name).copied().unwrap_or_default(),
                    });
                    scope.spawn(move || {
                        let started = Instant::now();
                        let result = if keep_packages { context.build_for_tests(step) } else { context.build(step) };
                        jobserver.release();
                        // The receiver lives until nothing runs any more.
                        let _ = send.send((name, result, started.elapsed()));
                    });
                    continue;
                }
                _ => {}
            }
            match receive.recv_timeout(Duration::from_millis(50)) {
                Ok((name, Ok(record), elapsed)) => {
                    running -= 1;
                    for needs in waiting.values_mut() {
                        needs.remove(name);
                    }
                    context.progress.event(Event::StepFinished { step: name, elapsed });
                    finished(&record);
                }
                Ok((name, Err(error), _)) => {
                    running -= 1;
                    if !matches!(error, Error::Interrupted) {
                        context.progress.event(Event::StepFailed { step: name });
                    }
                    errors.push(error);
                }
                Err(_) => {}
            }
            if running == 0 {
                // What was killed did not give its tokens back.
                let _ = jobserver.refill();
            }
        }
    });
    if cancelled() {
        return Err(Error::Interrupted);
    }
    match (errors.pop(), errors.len()) {
        (None, _) => Ok(()),
        (Some(only), 0) => Err(only),
        (Some(last), _) => {
            errors.push(last);
            Err(Error::Steps(errors))
        }
    }
}

/// For each step, the time from its start to the end of the longest chain of steps that need it.
fn priorities<'a>(steps: &[&'a Step], estimates: &BTreeMap<String, Duration>) -> BTreeMap<&'a str, Duration> {
    let mut priorities: BTreeMap<&str, Duration> = BTreeMap::new();
    // Steps come after what they need: from the end, every step's followers are known.
    for step in steps.iter().rev() {
        let own = estimates.get(&step.name).copied().unwrap_or_default();
        let total = {
            let entry = priorities.entry(step.name.as_str()).or_default();
            *entry += own;
            *entry
        };
        for (need, _) in &step.needs {
            if let Some(needed) = steps.iter().find(|s| s.name == need.step) {
                let entry = priorities.entry(needed.name.as_str()).or_default();
                *entry = (*entry).max(total);
            }
        }
    }
    priorities
}
