//! Which errors of a store cannot pass by themselves: trying again would only hide them for a while.
//!
//! | the store says | told as |
//! |---|---|
//! | S3: 403 or 401, whatever its code; the system: EACCES, EPERM | access denied |
//! | the system: EROFS | the file system is read-only |
//! | S3: NoSuchBucket | usage: there is no such bucket |
//! | a commit file is there and empty | fatal: the table is damaged |
//! | anything else, such as 5xx, a time limit, a full disk | it may pass |

use std::error::Error;
use std::io::{self, ErrorKind};

use crate::error::LakeError;
use crate::patience::EmptyCommit;

/// Why a store will refuse the same call again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// With what the store said about it.
    AccessDenied(String),
    ReadOnly(String),
    NoSuchBucket,
    /// A file that is not what was written.
    Damaged(String),
}

impl Refusal {
    pub(super) fn told(self, what: &str) -> LakeError {
        match self {
            Refusal::AccessDenied(why) => LakeError::Denied(format!(
                "{what}: access denied: {why}; give these credentials, or this user, the right to it"
            )),
            Refusal::ReadOnly(why) => LakeError::Denied(format!("{what}: the file system is read-only: {why}")),
            Refusal::Damaged(why) => LakeError::Fatal(format!("{what}: {why}")),
            Refusal::NoSuchBucket => {
                LakeError::Usage(format!("{what}: there is no such bucket; create it, or name another with --lake"))
            }
        }
    }
}

/// The refusal that is among the causes of an error, if there is one.
pub(super) fn of(error: &(dyn Error + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        let refusal = if let Some(empty) = error.downcast_ref::<EmptyCommit>() {
            Some(Refusal::Damaged(empty.to_string()))
        } else if let Some(error) = error.downcast_ref::<object_store::Error>() {
            of_store(error)
        } else if let Some(error) = error.downcast_ref::<io::Error>() {
            of_system(error)
        } else if let Some(buoyant_kernel::Error::ObjectStore(error)) = error.downcast_ref() {
            // This one does not tell its cause.
            of(error)
        } else {
            None
        };
        if refusal.is_some() {
            return refusal;
        }
        next = error.source();
    }
    None
}

fn of_store(error: &object_store::Error) -> Option<Refusal> {
    use object_store::Error as Store;
    match error {
        Store::PermissionDenied { path, source } | Store::Unauthenticated { path, source } => {
            let answer = answer(&source.to_string());
            Some(Refusal::AccessDenied(answer.map_or_else(|| path.clone(), |answer| format!("{path}: {answer}"))))
        }
        Store::NotFound { source, .. } | Store::Generic { source, .. }
            if source.to_string().contains("<Code>NoSuchBucket</Code>") =>
        {
            Some(Refusal::NoSuchBucket)
        }
        _ => None,
    }
}

fn of_system(error: &io::Error) -> Option<Refusal> {
    match error.kind() {
        ErrorKind::PermissionDenied => Some(Refusal::AccessDenied(error.to_string())),
        ErrorKind::ReadOnlyFilesystem => Some(Refusal::ReadOnly(error.to_string())),
        // What an error of the system carries is not among its sources.
        _ => error.get_ref().and_then(|inner| of(inner)),
    }
}

/// Code and message of an S3 server's answer.
fn answer(text: &str) -> Option<String> {
    let between = |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0.to_string());
    let code = between("<Code>", "</Code>")?;
    Some(between("<Message>", "</Message>").map_or(code.clone(), |message| format!("{code}: {message}")))
}

#[cfg(test)]
mod tests {
    use deltalake_core::DeltaTableError;

    use super::*;

    fn denied() -> object_store::Error {
        let source = "403: <Error><Code>AccessDenied</Code><Message>No.</Message></Error>".into();
        object_store::Error::PermissionDenied { path: "tables/qa".to_string(), source }
    }

    fn generic(source: io::Error) -> object_store::Error {
        object_store::Error::Generic { store: "local", source: Box::new(source) }
    }

    #[test]
    fn a_refusal_is_found_however_deep_it_lies() {
        let expected = Some(Refusal::AccessDenied("tables/qa: AccessDenied: No.".to_string()));
        assert_eq!(of(&denied()), expected);
        assert_eq!(of(&DeltaTableError::from(denied())), expected);
        assert_eq!(of(&DeltaTableError::from(buoyant_kernel::Error::from(denied()))), expected);
        assert_eq!(of(&io::Error::other(denied())), expected);
        let parquet = parquet::errors::ParquetError::External(Box::new(denied()));
        assert_eq!(of(&datafusion::error::DataFusionError::from(parquet)), expected);
        let system = io::Error::new(ErrorKind::ReadOnlyFilesystem, "/lake: read-only");
        assert_eq!(of(&generic(system)), Some(Refusal::ReadOnly("/lake: read-only".to_string())));
        assert_eq!(of(&generic(io::Error::from(ErrorKind::PermissionDenied))).map(|_| ()), Some(()));
        let source = "404: <Code>NoSuchBucket</Code>".into();
        assert_eq!(of(&object_store::Error::NotFound { path: "x".into(), source }), Some(Refusal::NoSuchBucket));
    }

    #[test]
    fn what_may_pass_is_no_refusal() {
        for kind in [ErrorKind::StorageFull, ErrorKind::TimedOut, ErrorKind::ConnectionRefused, ErrorKind::Other] {
            assert_eq!(of(&generic(io::Error::from(kind))), None, "{kind:?}");
        }
        let missing = object_store::Error::NotFound { path: "x".into(), source: "<Code>NoSuchKey</Code>".into() };
        assert_eq!(of(&missing), None);
        let error = LakeError::store("committing", generic(io::Error::from(ErrorKind::StorageFull)));
        assert!(error.may_pass(), "{error}");
    }

    #[test]
    fn a_refusal_is_told_with_what_was_done_and_what_helps() {
        let told = |error: object_store::Error| LakeError::store("committing to table qa", error);
        assert_eq!(
            told(denied()).to_string(),
            "committing to table qa: access denied: tables/qa: AccessDenied: No.; give these credentials, or this user, \
             the right to it"
        );
        assert!(matches!(told(denied()), LakeError::Denied(_)));
        let source = "404: <Code>NoSuchBucket</Code>".into();
        let error = told(object_store::Error::NotFound { path: "x".into(), source });
        assert!(matches!(&error, LakeError::Usage(text) if text.contains("no such bucket")), "{error}");
    }
}
