//! What a process leaves behind that crashes: where it was, and nothing of what it held.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Write as _,
    io::Write as _,
    panic::PanicHookInfo,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// In place of words that were made up at run time: values that did not fit are among them, and
/// pieces of texts that could not be cut.
pub(crate) const UNTOLD: &str = "what it says is left out, since it may hold data";

/// Sees to it that no crash of this process shows what it held. A panic is told of by its place in
/// the source, which says what was expected, and in words only where those stand in the source. The
/// memory is not written to a file.
///
/// To be called first thing. Calling it again changes nothing.
pub fn guard_crashes() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let told = told(panic, &backtrace);
        // There is nobody left to tell that this fails.
        let _written = std::io::stderr().lock().write_all(told.as_bytes());
    }));
    let limit = getrlimit(Resource::Core);
    // A limit can always be lowered.
    let _lowered = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
}

fn told(panic: &PanicHookInfo<'_>, backtrace: &Backtrace) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let words = words(panic.payload()).unwrap_or(UNTOLD);
    let mut told = format!("thread '{name}' panicked at {place}: {words}\n");
    if backtrace.status() == BacktraceStatus::Captured {
        // A text takes everything.
        let _written = writeln!(told, "{backtrace}");
    }
    told
}

/// Returns what a panic says, if it stands so in the source.
pub(crate) fn words(payload: &(dyn Any + Send)) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What makes the test below crash on purpose.
    const CRASHES: &str = "FANFARE_TEST_CRASHES";
    const SECRET: &str = "zo\u{eb}-7b1d55c2-secret";

    /// Cuts a text in the midst of a character, as a mistake of ours would.
    #[expect(clippy::string_slice, reason = "this is what goes wrong")]
    fn cut(text: &str) -> &str {
        &text[..3]
    }

    #[test]
    fn a_crash_shows_its_place_and_nothing_else() {
        let crashes = crate::process_env().unwrap().contains_key(CRASHES);
        if crashes {
            guard_crashes();
            let core = getrlimit(Resource::Core).current;
            assert_eq!(core, Some(0));
            let text = String::from(SECRET);
            let ended = std::thread::Builder::new().name(String::from("cutting"));
            ended.spawn(move || cut(&text).len()).unwrap().join().unwrap_err();
            panic!("{}", cut(SECRET));
        }
        let test = "crash::tests::a_crash_shows_its_place_and_nothing_else";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CRASHES, "1").env("RUST_BACKTRACE", "0");
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.contains("thread 'cutting' panicked at") && said.contains("crash.rs"),
            "{said}"
        );
        assert!(said.contains(UNTOLD), "{said}");
        assert!(!said.contains("7b1d55c2") && !said.contains("zo\u{eb}"), "{said}");
    }

    #[test]
    fn words_of_the_source_are_told() {
        let literal: Box<dyn Any + Send> = Box::new("the invariant");
        let made: Box<dyn Any + Send> = Box::new(String::from("the value"));
        assert_eq!((words(literal.as_ref()), words(made.as_ref())), (Some("the invariant"), None));
    }
}
