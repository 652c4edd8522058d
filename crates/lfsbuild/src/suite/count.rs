//! Counting results in what test suites print. Each harness has its own words; the most summary ones that were seen count.

use super::Counts;

/// Reads a suite's output line by line.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// From summaries: automake, DejaGnu, prove, Autotest, glibc, unittest, pytest, meson, ctest, Check, e2fsprogs, tcl.
    summary: Counts,
    /// From lines `PASS: NAME`, and zlib's.
    lines: Counts,
    /// From lines `ok 1 - NAME`, which count when there was a plan.
    tap: Counts,
    planned: bool,
    /// Inside glibc's summary.
    glibc: bool,
    /// Test cases that failed in prove's scripts.
    scripts: u64,
}

impl Counter {
    /// Takes a line.
    pub(super) fn line(&mut self, line: &[u8]) {
        let text = plain(line);
        let text = text.trim();
        if !self.summarized(text) {
            self.named(text);
            self.tap(text);
        }
    }

    /// What was counted; all zero when nothing was known.
    pub(super) fn counts(self) -> Counts {
        let tap = if self.planned { self.tap } else { Counts::default() };
        [self.summary, self.lines, tap].into_iter().find(|c| *c != Counts::default()).unwrap_or_default()
    }

    /// Whether it is a line of a summary.
    fn summarized(&mut self, text: &str) -> bool {
        let words: Vec<&str> = text.split_whitespace().collect();
        let sum = &mut self.summary;
        if text == "Summary of test results:" {
            self.glibc = true;
        } else if let Some(rest) = text.strip_prefix("# of ") {
            // DejaGnu: `# of unexpected failures   3`.
            let Some(n) = words.last().and_then(|w| number(w)) else { return false };
            match rest {
                r if r.starts_with("expected passes") => sum.passed += n,
                r if r.starts_with("expected failures") => sum.xfailed += n,
                r if ["unexpected", "unresolved"].iter().any(|w| r.starts_with(w)) => sum.failed += n,
                r if ["unsupported", "untested"].iter().any(|w| r.starts_with(w)) => sum.skipped += n,
                _ => return false,
            }
        } else if let Some((key, n)) = text.strip_prefix("# ").and_then(|t| t.split_once(':')) {
            // automake: `# PASS:  12`.
            let Some(n) = number(n.trim()) else { return false };
            return sum.add(key, n);
        } else if let [n, key] = words[..]
            && let (true, Some(n)) = (self.glibc, number(n))
        {
            return sum.add(key, n);
        } else if let Some((key, n)) = text.split_once(':')
            && let Some(n) = number(n.trim())
        {
            // meson: `Expected Fail:   1`.
            match key {
                "Ok" => sum.passed += n,
                "Fail" | "Unexpected Pass" | "Timeout" => sum.failed += n,
                "Expected Fail" => sum.xfailed += n,
                "Skipped" => sum.skipped += n,
                _ => return false,
            }
        } else if let Some((_, about)) = text.split_once("(Wstat: ") {
            // prove, of a script: `t/a.t (Wstat: 256 (exited 1) Tests: 3 Failed: 1)`. One that died has failed, too.
            let n = about.split_once("Failed: ").and_then(|(_, n)| number(n.trim_end_matches(')')));
            self.scripts += n.unwrap_or(0);
            if n == Some(0) && !about.starts_with("0 ") {
                sum.failed += 1;
            }
        } else if text.starts_with("Files=") || text.starts_with("Total tests: run=") {
            // prove, after those: `Files=12, Tests=345, ...`; Python's regrtest: `Total tests: run=46,123 failures=5 skipped=2,000`.
            let value =
                |key: &str| words.iter().find_map(|w| number(w.strip_prefix(key)?.trim_end_matches(','))).unwrap_or(0);
            let failed = value("failures=") + value("errors=") + std::mem::take(&mut self.scripts);
            let skipped = value("skipped=");
            sum.passed += (value("Tests=") + value("run=")).saturating_sub(failed + skipped);
            sum.failed += failed;
            sum.skipped += skipped;
        } else if text.starts_with("OK (") || text.starts_with("FAILED (") {
            // unittest, after `Ran 12 tests in 0.1s`: `FAILED (failures=1, errors=2, skipped=3, expected failures=1)`.
            for part in text.split(['(', ')', ',']) {
                let Some((key, n)) = part.trim().split_once('=').and_then(|(k, n)| Some((k, number(n)?))) else {
                    continue;
                };
                match key {
                    "failures" | "errors" | "unexpected successes" => sum.turn(n, |c| &mut c.failed),
                    "skipped" => sum.turn(n, |c| &mut c.skipped),
                    "expected failures" => sum.turn(n, |c| &mut c.xfailed),
                    _ => {}
                }
            }
        } else {
            return self.sentence(text, &words);
        }
        true
    }

    /// Summaries that are sentences.
    fn sentence(&mut self, text: &str, words: &[&str]) -> bool {
        let sum = &mut self.summary;
        let is =
            |i: usize, any: &[&str]| words.get(i).is_some_and(|w| any.contains(&w.trim_matches([',', '.', '!', ')'])));
        let n = |i: usize| words.get(i).and_then(|w| number(w.trim_start_matches('(').trim_end_matches(',')));
        let tests = ["test", "tests", "checks"];
        match (n(0), n(1), n(2)) {
            // unittest: `Ran 12 tests in`.
            (_, Some(all), _) if words.first() == Some(&"Ran") && is(2, &tests) => sum.passed += all,
            // automake's old harness and others: `All 12 tests passed`; Autotest: `ERROR: All 12 tests were run,`.
            (_, Some(all), _) if is(0, &["All"]) && is(2, &tests) && is(3, &["passed", "PASSED", "behaved"]) => {
                sum.passed += all
            }
            (_, Some(all), _) if is(0, &["ERROR:"]) && is(2, &tests) && is(4, &["run"]) => sum.passed += all,
            (_, _, Some(all)) if is(0, &["ERROR:"]) && is(1, &["All"]) && is(3, &tests) => sum.passed += all,
            // `3 of 5 tests failed`.
            (Some(bad), _, Some(all)) if is(1, &["of"]) && is(3, &tests) && is(4, &["failed"]) => {
                sum.passed += all.saturating_sub(bad);
                sum.failed += bad;
            }
            // `(2 tests were not run)`; Autotest: `53 tests were skipped.`, `712 tests were successful.`
            (Some(count), ..) if is(1, &tests) && is(2, &["were", "was"]) => match () {
                () if is(3, &["skipped", "not"]) => sum.skipped += count,
                () if is(3, &["successful"]) => sum.passed += count,
                () => return false,
            },
            (Some(count), ..) if is(1, &tests) && is(2, &["behaved", "succeeded", "passed"]) => {
                // Autotest; e2fsprogs: `382 tests succeeded 0 tests failed`.
                sum.passed += count;
                sum.failed += n(3).filter(|_| is(4, &tests) && is(5, &["failed"])).unwrap_or(0);
            }
            // Autotest, after the number that was run: `10 failed (4 expected failures).`, `1 failed unexpectedly.`
            (Some(bad), _, _)
                if is(1, &["failed"]) && (words.len() == 2 || is(2, &["unexpectedly"]) || is(3, &["expected"])) =>
            {
                let expected = n(2).unwrap_or(0);
                sum.turn(bad.saturating_sub(expected), |c| &mut c.failed);
                sum.turn(expected, |c| &mut c.xfailed);
            }
            // ctest: `97% tests passed, 3 tests failed out of 100`.
            (_, _, _)
                if is(1, &tests) && is(2, &["passed"]) && is(7, &["of"]) || text.contains("tests failed out of") =>
            {
                let (bad, all) = (n(3).unwrap_or(0), n(8).unwrap_or(0));
                sum.passed += all.saturating_sub(bad);
                sum.failed += bad;
            }
            _ => return self.pairs(text, words),
        }
        true
    }

    /// Summaries of numbers with a word each: Check's, tcl's, pytest's.
    fn pairs(&mut self, text: &str, words: &[&str]) -> bool {
        let sum = &mut self.summary;
        let after = |key: &str| {
            let i = words.iter().position(|w| *w == key)?;
            number(words.get(i + 1)?.trim_end_matches(','))
        };
        if let (Some(all), Some(bad), Some(errors)) = (after("Checks:"), after("Failures:"), after("Errors:")) {
            sum.passed += all.saturating_sub(bad + errors);
            sum.failed += bad + errors;
        } else if let (Some(good), Some(skipped), Some(bad)) = (after("Passed"), after("Skipped"), after("Failed")) {
            *sum =
                Counts { passed: sum.passed + good, skipped: sum.skipped + skipped, failed: sum.failed + bad, ..*sum };
        } else if text.contains(" in ")
            && (text.starts_with("=====") || words.get(1).is_some_and(|w| w.starts_with("passed")))
        {
            for pair in words.windows(2) {
                let [count, key] = pair else { continue };
                let Some(count) = number(count) else { continue };
                match key.trim_end_matches(',') {
                    "passed" | "xpassed" => sum.passed += count,
                    "failed" | "error" | "errors" => sum.failed += count,
                    "skipped" | "deselected" => sum.skipped += count,
                    "xfailed" => sum.xfailed += count,
                    _ => {}
                }
            }
        } else {
            return false;
        }
        true
    }

    fn named(&mut self, text: &str) {
        if let Some((key, name)) = text.split_once(':')
            && name.starts_with(' ')
        {
            self.lines.add(key, 1);
        } else if let Some(said) = text.strip_prefix("*** ").and_then(|t| t.strip_suffix(" ***")) {
            // zlib: `*** zlib shared test OK ***`.
            self.lines.passed += u64::from(said.ends_with(" OK"));
            self.lines.failed += u64::from(said.ends_with(" FAILED"));
        }
    }

    fn tap(&mut self, text: &str) {
        let plan = text.strip_prefix("1..").and_then(|n| n.split(' ').next()).and_then(number);
        self.planned |= plan.is_some();
        let (good, rest) = match (text.strip_prefix("ok"), text.strip_prefix("not ok")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return,
        };
        if !(rest.is_empty() || rest.starts_with(' ')) {
            return;
        }
        let directive = rest.split_once('#').map(|(_, d)| d.trim_start().to_ascii_uppercase()).unwrap_or_default();
        match good {
            _ if directive.starts_with("SKIP") => self.tap.skipped += 1,
            false if directive.starts_with("TODO") => self.tap.xfailed += 1,
            true => self.tap.passed += 1,
            false => self.tap.failed += 1,
        }
    }
}

impl Counts {
    /// Adds to what a word of automake's and DejaGnu's stands for; false when it is none.
    fn add(&mut self, word: &str, n: u64) -> bool {
        match word {
            "PASS" => self.passed += n,
            "FAIL" | "XPASS" | "ERROR" | "UNRESOLVED" => self.failed += n,
            "SKIP" | "SKIPPED" | "UNSUPPORTED" | "UNTESTED" => self.skipped += n,
            "XFAIL" => self.xfailed += n,
            _ => return false,
        }
        true
    }

    /// Takes `n` of those that were counted as passed for another kind.
    fn turn(&mut self, n: u64, kind: impl Fn(&mut Counts) -> &mut u64) {
        self.passed = self.passed.saturating_sub(n);
        *kind(self) += n;
    }
}

/// A number, perhaps with commas for thousands.
fn number(text: &str) -> Option<u64> {
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.replace(',', "").parse().ok()).flatten()
}

/// A line as text, without the terminal's colours.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut parts = text.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passed, failed, skipped, expected failures.
    fn count(text: &str) -> (u64, u64, u64, u64) {
        let mut counter = Counter::default();
        text.lines().for_each(|line| counter.line(line.as_bytes()));
        let c = counter.counts();
        (c.passed, c.failed, c.skipped, c.xfailed)
    }

    #[test]
    fn automake() {
        let colour = "\x1b[1m# TOTAL: 7\x1b[m\n\x1b[0;32m# PASS:  3\x1b[m\n# SKIP:  1\n# XFAIL: 1\n# FAIL:  1\n# XPASS: 0\n# ERROR: 1\n";
        assert_eq!(count(&format!("PASS: a.sh\nFAIL: b.sh\n{colour}make[2]: x\n{colour}")), (6, 4, 2, 2));
        assert_eq!(count("PASS: a\nAll 12 tests passed\n"), (12, 0, 0, 0));
        assert_eq!(count("FAIL: a\n3 of 15 tests failed\n(2 tests were not run)\n"), (12, 3, 2, 0));
        assert_eq!(count("PASS: a\nSKIPPED: b\nFAIL: c\nXFAIL: d\nnote: e\n"), (1, 1, 1, 1));
    }

    #[test]
    fn dejagnu() {
        let text = "\t\t=== gcc Summary ===\n\n# of expected passes\t\t184,120\n# of unexpected failures\t3\n\
                    # of unexpected successes\t2\n# of expected failures\t\t9\n# of unresolved testcases\t1\n# of unsupported tests\t\t40\n";
        assert_eq!(count(text), (184_120, 6, 40, 9));
    }

    #[test]
    fn perl() {
        let good =
            "t/a.t .. ok\nAll tests successful.\nFiles=12, Tests=345,  3 wallclock secs ( 0.08 usr)\nResult: PASS\n";
        assert_eq!(count(good), (345, 0, 0, 0));
        let bad = "Test Summary Report\n----\nt/a.t (Wstat: 256 (exited 1) Tests: 3 Failed: 1)\n  Failed test:  3\n\
                   t/b.t (Wstat: 0 Tests: 3 Failed: 1)\nt/c.t (Wstat: 512 (exited 2) Tests: 0 Failed: 0)\n\
                   t/d.t (Wstat: 0 Tests: 3 Failed: 0)\n  TODO passed:   3\nFiles=12, Tests=345,  3 wallclock secs\nResult: FAIL\n\
                   Failed 3/12 test programs. 2/345 subtests failed.\n";
        assert_eq!(count(bad), (343, 3, 0, 0));
        assert_eq!(count("1..4\nok 1 - a\nok 2 # skip no\nnot ok 3 # TODO later\nnot ok 4\nokay\n"), (1, 1, 1, 1));
        assert_eq!(count("ok 1\n"), (0, 0, 0, 0));
    }

    #[test]
    fn autotest() {
        assert_eq!(count("712 tests were successful.\n53 tests were skipped.\n"), (712, 0, 53, 0));
        assert_eq!(count("712 tests behaved as expected.\n1 test was skipped.\n"), (712, 0, 1, 0));
        let bad = "ERROR: 702 tests were run,\n10 failed (4 expected failures).\n53 tests were skipped.\n";
        assert_eq!(count(bad), (692, 6, 53, 4));
        assert_eq!(count("ERROR: All 5 tests were run,\n1 failed unexpectedly.\n"), (4, 1, 0, 0));
    }

    #[test]
    fn python() {
        assert_eq!(count("Ran 12 tests in 0.1s\n\nOK\n"), (12, 0, 0, 0));
        assert_eq!(
            count("Ran 12 tests in 0.1s\n\nFAILED (failures=1, errors=2, skipped=3, expected failures=1)\n"),
            (5, 3, 3, 1)
        );
        assert_eq!(count("Total tests: run=46,123 failures=5 skipped=2,000\n"), (44_118, 5, 2_000, 0));
        assert_eq!(count("===== 12 passed, 1 failed, 3 skipped, 2 warnings in 1.20s =====\n"), (12, 1, 3, 0));
    }

    #[test]
    fn others() {
        let glibc =
            "Summary of test results:\n      5 FAIL\n   5000 PASS\n     30 UNSUPPORTED\n     16 XFAIL\n      4 XPASS\n";
        assert_eq!(count(glibc), (5_000, 9, 30, 16));
        let meson = "Ok:                 12  \nExpected Fail:      1   \nFail:               2   \nUnexpected Pass:    0   \nSkipped:            3   \nTimeout:            1   \n";
        assert_eq!(count(meson), (12, 3, 3, 1));
        assert_eq!(count("382 tests succeeded\t1 tests failed\n"), (382, 1, 0, 0));
        assert_eq!(count("97% tests passed, 3 tests failed out of 100\n"), (97, 3, 0, 0));
        assert_eq!(count("100%: Checks: 312, Failures: 1, Errors: 0\n"), (311, 1, 0, 0));
        assert_eq!(count("all.tcl:\tTotal\t123\tPassed\t118\tSkipped\t3\tFailed\t2\n"), (118, 2, 3, 0));
        assert_eq!(count("  All 250 tests PASSED\n"), (250, 0, 0, 0));
        assert_eq!(count("*** zlib test OK ***\n*** zlib shared test FAILED ***\n*** note ***\n"), (1, 1, 0, 0));
        assert_eq!(count("gcc -o a a.c\n# x: y\nerror: 3\nall good\n"), (0, 0, 0, 0));
    }

    proptest::proptest! {
        /// Whatever a suite prints, counting it ends.
        #[test]
        fn any_output_is_read(text in "[#PASFIL:oknt1-9 ./,()=\x1b\n\\[a-f]{0,300}") {
            let _ = count(&text);
        }
    }
}
