//! Determines which installation of patgate a database belongs to.

use sqlx::{PgPool, Row as _, postgres::PgRow};

use super::{
    code,
    connect::Target,
    message,
    schema::{
        INSUFFICIENT_PRIVILEGE, POSTGRES_URL, SchemaError, UNDEFINED_FUNCTION, UNDEFINED_SCHEMA,
        UNDEFINED_TABLE,
    },
};
use crate::installation::Installation;

/// The column by which a statement says which installation answers it. Every statement has it:
/// behind a pooler, two servers may answer two statements in a row.
macro_rules! identity_column {
    () => {
        "(SELECT patgate.identity()) AS identity"
    };
}
pub(crate) use identity_column;

/// Reads the column that [`identity_column`] selects.
///
/// # Errors
///
/// If the column is missing, or does not name an installation.
pub(crate) fn installation(row: &PgRow) -> Result<Installation, sqlx::Error> {
    let identity: &str = row.try_get("identity")?;
    identity.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Asks to which installation of patgate the database belongs.
///
/// # Errors
///
/// If it belongs to none, does not say which, or cannot be reached.
pub(crate) async fn identify(pool: &PgPool) -> Result<Installation, SchemaError> {
    const IDENTIFY: &str = concat!("SELECT ", identity_column!());
    let row = sqlx::raw_sql(IDENTIFY).fetch_one(pool).await;
    row.and_then(|row| installation(&row)).map_err(|error| match code(&error).as_deref() {
        Some(INSUFFICIENT_PRIVILEGE) => SchemaError::Denied(message(&error)),
        Some(UNDEFINED_TABLE | UNDEFINED_FUNCTION | UNDEFINED_SCHEMA) => SchemaError::Nameless,
        // The row is missing, or is not as patgate wrote it.
        _ if matches!(error, sqlx::Error::ColumnDecode { .. }) => SchemaError::Nameless,
        _ => Target::of_pool(POSTGRES_URL, pool).unreachable(&error).into(),
    })
}
