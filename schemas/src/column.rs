//! How a Rust type becomes an Arrow column.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Rust type that can be a column of an event table.
///
/// Only types that Delta Lake has are used: no unsigned integers, timestamps in microseconds UTC.
pub trait Column {
    /// The Arrow type of the column.
    fn data_type() -> DataType;
    /// Whether the column may hold nulls. A column that may not is required in `data`.
    const NULLABLE: bool = false;
}

macro_rules! scalar {
    ($($rust:ty => $arrow:expr),* $(,)?) => {
        $(impl Column for $rust {
            fn data_type() -> DataType {
                $arrow
            }
        })*
    };
}

scalar! {
    bool => DataType::Boolean,
    i32 => DataType::Int32,
    i64 => DataType::Int64,
    f32 => DataType::Float32,
    f64 => DataType::Float64,
    String => DataType::Utf8,
    JsonText => DataType::Utf8,
    Base64 => DataType::Binary,
    DateTime<Utc> => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
}

impl<T: Column> Column for Option<T> {
    fn data_type() -> DataType {
        T::data_type()
    }
    const NULLABLE: bool = true;
}

impl<T: Column> Column for Vec<T> {
    fn data_type() -> DataType {
        // Delta names the element of every list "element"; another name would make the schemas differ.
        DataType::List(Arc::new(Field::new("element", T::data_type(), T::NULLABLE)))
    }
}

/// Key of the field metadata that marks a string column as holding JSON of any type.
pub const JSON_MARK: &str = "webdancer.json";
/// Key of the field metadata that holds a column's documentation.
pub const DOC: &str = "webdancer.doc";

/// A JSON value of any type, stored as its text in a string column.
///
/// In `data` it is the value itself (an object, a list, a number …), not a string of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct JsonText(pub serde_json::Value);

/// Bytes: base64 (RFC 4648, standard alphabet, padded) in JSON, binary in the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD.decode(text).map(Base64).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Base64 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Base64".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "contentEncoding": "base64"})
    }
}

/// The Arrow field of a column: name, type, nullability and its doc comment as metadata.
pub fn field<T: Column + 'static>(name: &str, doc: &str) -> Field {
    let mut metadata = std::collections::HashMap::from([(DOC.to_string(), doc.trim().to_string())]);
    let type_id = std::any::TypeId::of::<T>();
    if type_id == std::any::TypeId::of::<JsonText>() || type_id == std::any::TypeId::of::<Option<JsonText>>() {
        metadata.insert(JSON_MARK.to_string(), "true".to_string());
    }
    Field::new(name, T::data_type(), T::NULLABLE).with_metadata(metadata)
}

/// A struct column of the given fields.
pub fn struct_type(fields: Vec<Field>) -> DataType {
    DataType::Struct(Fields::from(fields))
}
