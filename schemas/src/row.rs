//! The declaration of rows: one struct gives the Rust type, the Arrow fields and the JSON Schema.

use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kind::Kind;

/// The typed `data` of an event.
pub trait Row: Serialize + DeserializeOwned + JsonSchema {
    /// The column that names the entity: the event's `subject`, and its key in the log.
    const KEY: &'static str;
    /// The Arrow fields of the row's columns, in table order.
    fn fields() -> Vec<Field>;
    /// The value of the [key](Row::KEY) column.
    fn subject(&self) -> String;
}

/// The kind that a row type belongs to (declared in [`crate::kind`]).
pub trait HasKind: Row {
    /// The kind of events that carry this row.
    const KIND: Kind;
}

/// Declares a row. Every field is documented; an `Option` may be absent or null in JSON; a list marked
/// `#[serde(default)]` may be absent and is then empty; everything else is required.
macro_rules! row {
    ($(#[doc = $doc:literal])* $name:ident by $key:ident {
        $($(#[doc = $field_doc:literal])+ $(#[serde($($serde:tt)*)])? $field:ident : $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub struct $name {
            $($(#[doc = $field_doc])+ $(#[serde($($serde)*)])? pub $field: $type,)*
        }

        impl crate::row::Row for $name {
            const KEY: &'static str = stringify!($key);

            fn fields() -> Vec<arrow::datatypes::Field> {
                vec![$(crate::column::field::<$type>(stringify!($field).trim_start_matches("r#"), concat!($($field_doc, "\n"),+)),)*]
            }

            fn subject(&self) -> String {
                self.$key.clone()
            }
        }
    };
}
pub(crate) use row;
