//! Why a call to a CRM did not give what was asked for.

use contacts::ErrorKind;

/// A failed call. `kind` decides what happens next; the text is for people and holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CrmError {
    pub kind: ErrorKind,
    pub message: String,
    /// How far the call got.
    pub reached: Reached,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// How far a call got: what a failed write may have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// Nothing was sent.
    #[default]
    Nobody,
    /// It was sent, or was about to be, and no reply was read to its end.
    Perhaps,
    /// The CRM replied with this status.
    Replied(u16),
}

/// What became of a write that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The CRM does not take the credentials; nothing was written.
    Credentials,
    /// The CRM said no to what was asked; nothing was written, and repeating it will not help.
    Refused,
    /// Nothing was written, and it may be tried again.
    NotStarted,
    /// It may have been written.
    Unknown,
}

pub type CrmResult<T> = Result<T, CrmError>;

impl CrmError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> CrmError {
        CrmError {
            kind,
            message: message.into(),
            reached: Reached::Nobody,
            source: None,
        }
    }

    pub fn because(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CrmError {
        CrmError {
            kind,
            message: message.into(),
            reached: Reached::Nobody,
            source: Some(source.into()),
        }
    }

    pub(crate) fn reaching(mut self, reached: Reached) -> CrmError {
        self.reached = reached;
        self
    }

    /// What became of a write that failed with this: what is not certain is unknown.
    pub fn fate(&self) -> Fate {
        match (self.reached, self.kind) {
            (Reached::Perhaps, _) => Fate::Unknown,
            (_, ErrorKind::Throttled { .. } | ErrorKind::Quota { .. }) => Fate::NotStarted,
            (Reached::Nobody, ErrorKind::Credentials) => Fate::Credentials,
            (Reached::Nobody, ErrorKind::Rejected | ErrorKind::HostRefused) => Fate::Refused,
            (Reached::Nobody, _) => Fate::NotStarted,
            // Who may not do this one thing still has good credentials.
            (Reached::Replied(403), ErrorKind::Credentials) => Fate::Refused,
            (Reached::Replied(_), ErrorKind::Credentials) => Fate::Credentials,
            (Reached::Replied(_), ErrorKind::Rejected | ErrorKind::Missing) => Fate::Refused,
            (Reached::Replied(_), _) => Fate::Unknown,
        }
    }

    /// An expression of the connector failed on what came in.
    pub(crate) fn expression(error: crate::expr::ExprError) -> CrmError {
        CrmError::because(ErrorKind::BadReply, "the connector cannot read the reply", error)
    }

    /// An expression of the connector failed while a request was put together.
    pub(crate) fn request(error: crate::expr::ExprError) -> CrmError {
        CrmError::because(
            ErrorKind::Rejected,
            "the connector cannot put the request together",
            error,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_may_have_happened_is_never_called_undone() {
        let until = contacts::Micros(1);
        let kinds = [
            ErrorKind::Credentials,
            ErrorKind::Throttled { until },
            ErrorKind::Quota { until },
            ErrorKind::NoBudget { until },
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::BadReply,
            ErrorKind::Rejected,
            ErrorKind::CursorStuck,
            ErrorKind::HostRefused,
            ErrorKind::Missing,
            ErrorKind::StoreDown,
        ];
        for kind in kinds {
            let fate = |reached| CrmError::new(kind, "").reaching(reached).fate();
            assert_eq!(fate(Reached::Perhaps), Fate::Unknown, "{kind:?}");
            assert_ne!(fate(Reached::Nobody), Fate::Unknown, "{kind:?}");
            let said_no = matches!(
                kind,
                ErrorKind::Credentials
                    | ErrorKind::Throttled { .. }
                    | ErrorKind::Quota { .. }
                    | ErrorKind::Rejected
                    | ErrorKind::Missing
            );
            for status in [200, 201, 400, 401, 403, 404, 500, 503] {
                assert_eq!(
                    fate(Reached::Replied(status)) != Fate::Unknown,
                    said_no,
                    "{kind:?} {status}"
                );
            }
        }
    }
}
