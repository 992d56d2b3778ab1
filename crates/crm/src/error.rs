//! Why a call to a CRM did not give what was asked for.

use contacts::ErrorKind;

/// A failed call. `kind` decides what happens next; the text is for people and holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CrmError {
    pub kind: ErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type CrmResult<T> = Result<T, CrmError>;

impl CrmError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> CrmError {
        CrmError {
            kind,
            message: message.into(),
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
            source: Some(source.into()),
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
