//! One result of `ringcast check`.

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to do.
    Ok,
    /// The server runs, but worse than it could or than was asked.
    Warn,
    /// The server does not start, or breaks a promise of its configuration.
    Fail,
}

impl Verdict {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// What was looked at, what was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub verdict: Verdict,
    pub subject: &'static str,
    pub found: String,
    /// Commands or settings, one a line; always there unless the verdict is OK.
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject, found: found.into(), advice: None }
    }

    pub(super) fn warn(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, advice: Some(advice.into()), ..Self::ok(subject, found) }
    }

    pub(super) fn fail(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(subject, found, advice) }
    }
}
