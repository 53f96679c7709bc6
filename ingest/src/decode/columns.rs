//! Builders of the Arrow types that rows have, filled from JSON values.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListArray,
    NullBufferBuilder, StringBuilder, StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;
use base64::Engine as _;
use chrono::{DateTime, Utc};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use webdancer_schemas::column::JSON_MARK;
use webdancer_schemas::wire::Text;

use super::row::{Path, Step};

/// A column under construction.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    nullable: bool,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Bool(BooleanBuilder),
    I32(Int32Builder),
    I64(Int64Builder),
    F32(Float32Builder),
    F64(Float64Builder),
    Text(StringBuilder),
    Json(StringBuilder),
    Bytes(BinaryBuilder),
    Time(TimestampMicrosecondBuilder),
    List { offsets: Vec<i32>, nulls: NullBufferBuilder, item: Box<ColumnBuilder> },
    Struct { fields: Fields, len: usize, nulls: NullBufferBuilder, columns: Vec<ColumnBuilder> },
}

impl ColumnBuilder {
    /// # Panics
    /// Never for the types that `webdancer_schemas::column::Column` is implemented for; a test builds every kind.
    pub(super) fn new(field: &Field) -> ColumnBuilder {
        let data = match field.data_type() {
            DataType::Boolean => Data::Bool(BooleanBuilder::new()),
            DataType::Int32 => Data::I32(Int32Builder::new()),
            DataType::Int64 => Data::I64(Int64Builder::new()),
            DataType::Float32 => Data::F32(Float32Builder::new()),
            DataType::Float64 => Data::F64(Float64Builder::new()),
            DataType::Utf8 if field.metadata().contains_key(JSON_MARK) => Data::Json(StringBuilder::new()),
            DataType::Utf8 => Data::Text(StringBuilder::new()),
            DataType::Binary => Data::Bytes(BinaryBuilder::new()),
            DataType::Timestamp(_, _) => Data::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            DataType::List(item) => Data::List {
                offsets: vec![0],
                nulls: NullBufferBuilder::new(0),
                item: Box::new(ColumnBuilder::new(item)),
            },
            DataType::Struct(fields) => Data::Struct {
                fields: fields.clone(),
                len: 0,
                nulls: NullBufferBuilder::new(0),
                columns: fields.iter().map(|field| ColumnBuilder::new(field)).collect(),
            },
            other => unreachable!("no row has a column of type {other}"),
        };
        ColumnBuilder { nullable: field.is_nullable(), data }
    }

    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Bool(b) => arrow::array::ArrayBuilder::len(b),
            Data::I32(b) => arrow::array::ArrayBuilder::len(b),
            Data::I64(b) => arrow::array::ArrayBuilder::len(b),
            Data::F32(b) => arrow::array::ArrayBuilder::len(b),
            Data::F64(b) => arrow::array::ArrayBuilder::len(b),
            Data::Text(b) | Data::Json(b) => arrow::array::ArrayBuilder::len(b),
            Data::Bytes(b) => arrow::array::ArrayBuilder::len(b),
            Data::Time(b) => arrow::array::ArrayBuilder::len(b),
            Data::List { offsets, .. } => offsets.len() - 1,
            Data::Struct { len, .. } => *len,
        }
    }

    /// Fills a value that `data` does not have. False: it is required.
    pub(super) fn append_absent(&mut self) -> bool {
        if self.nullable || matches!(self.data, Data::List { .. }) {
            self.append_filler();
            return true;
        }
        false
    }

    /// Makes the column `rows` long after a row failed somewhere inside.
    pub(super) fn pad(&mut self, rows: usize) {
        match &mut self.data {
            Data::List { offsets, item, nulls } => {
                // A list cut short has items that no list owns yet: close it, masked rows may hold anything.
                let end = offsets.last().copied().unwrap_or(0);
                item.pad(item.len());
                let items = item.len();
                if items > end as usize {
                    offsets.push(i32::try_from(items).unwrap_or(i32::MAX));
                    nulls.append_non_null();
                }
            }
            Data::Struct { columns, len, nulls, .. } => {
                let longest = columns.iter().map(ColumnBuilder::len).max().unwrap_or(0).max(*len);
                columns.iter_mut().for_each(|column| column.pad(longest));
                if longest > *len {
                    *len = longest;
                    nulls.append_non_null();
                }
            }
            _ => {}
        }
        while self.len() < rows {
            self.append_filler();
        }
    }

    /// Null where the column may be null, else an empty value.
    fn append_filler(&mut self) {
        let nullable = self.nullable;
        match &mut self.data {
            Data::Bool(b) => b.append_option((!nullable).then_some(false)),
            Data::I32(b) => b.append_option((!nullable).then_some(0)),
            Data::I64(b) => b.append_option((!nullable).then_some(0)),
            Data::F32(b) => b.append_option((!nullable).then_some(0.0)),
            Data::F64(b) => b.append_option((!nullable).then_some(0.0)),
            Data::Text(b) | Data::Json(b) => b.append_option((!nullable).then_some("")),
            Data::Bytes(b) => b.append_option((!nullable).then_some([])),
            Data::Time(b) => b.append_option((!nullable).then_some(0)),
            Data::List { offsets, nulls, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                nulls.append(!nullable);
            }
            Data::Struct { columns, len, nulls, .. } => {
                *len += 1;
                nulls.append(!nullable);
                let len = *len;
                columns.iter_mut().for_each(|column| column.pad(len));
            }
        }
    }

    pub(super) fn finish(&mut self, field: &Field) -> Result<ArrayRef, ArrowError> {
        Ok(match &mut self.data {
            Data::Bool(b) => Arc::new(b.finish()),
            Data::I32(b) => Arc::new(b.finish()),
            Data::I64(b) => Arc::new(b.finish()),
            Data::F32(b) => Arc::new(b.finish()),
            Data::F64(b) => Arc::new(b.finish()),
            Data::Text(b) | Data::Json(b) => Arc::new(b.finish()),
            Data::Bytes(b) => Arc::new(b.finish()),
            Data::Time(b) => Arc::new(b.finish()),
            Data::List { offsets, nulls, item } => {
                let DataType::List(item_field) = field.data_type() else {
                    return Err(ArrowError::SchemaError(format!("{} is no list", field.name())));
                };
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let items = item.finish(item_field)?;
                Arc::new(ListArray::try_new(item_field.clone(), offsets, items, nulls.finish())?)
            }
            Data::Struct { fields, len, nulls, columns } => {
                let arrays = columns
                    .iter_mut()
                    .zip(fields.iter())
                    .map(|(column, field)| column.finish(field))
                    .collect::<Result<Vec<_>, _>>()?;
                *len = 0;
                Arc::new(StructArray::try_new(fields.clone(), arrays, nulls.finish())?)
            }
        })
    }
}

/// Whether JSON text is JSON to every reader: a scan for its end lets pass half a surrogate pair, or nesting so deep that
/// readers give up.
pub(super) fn readable(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<serde_json::Value>(text).map(drop)
}

/// Appends one JSON value to a column.
pub(super) struct Value<'a> {
    pub(super) column: &'a mut ColumnBuilder,
    pub(super) path: &'a mut Path,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Data::Json(builder) = &mut self.column.data {
            let raw = <&RawValue>::deserialize(deserializer)?.get();
            return match raw {
                "null" if self.column.nullable => {
                    builder.append_null();
                    Ok(())
                }
                text => {
                    readable(text).map_err(D::Error::custom)?;
                    builder.append_value(text);
                    Ok(())
                }
            };
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.column.data {
            Data::Bool(_) => "true or false",
            Data::I32(_) => "an integer of 32 bits",
            Data::I64(_) => "an integer",
            Data::F32(_) | Data::F64(_) => "a number",
            Data::Text(_) => "a string",
            Data::Json(_) => "a JSON value",
            Data::Bytes(_) => "a string of base64",
            Data::Time(_) => "an RFC 3339 time",
            Data::List { .. } => "a list",
            Data::Struct { .. } => "an object",
        })?;
        if self.column.nullable { f.write_str(" or null") } else { Ok(()) }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.column.nullable {
            self.column.append_filler();
            return Ok(());
        }
        Err(E::invalid_type(serde::de::Unexpected::Unit, &self))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match &mut self.column.data {
            Data::Bool(builder) => {
                builder.append_value(value);
                Ok(())
            }
            _ => Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match &mut self.column.data {
            Data::I64(builder) => builder.append_value(value),
            Data::I32(builder) => match i32::try_from(value) {
                Ok(value) => builder.append_value(value),
                Err(_) => return Err(E::invalid_value(serde::de::Unexpected::Signed(value), &self)),
            },
            Data::F64(builder) => builder.append_value(value as f64),
            Data::F32(builder) => builder.append_value(value as f32),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match (i64::try_from(value), &mut self.column.data) {
            (Ok(value), _) => self.visit_i64(value),
            (Err(_), Data::F64(builder)) => {
                builder.append_value(value as f64);
                Ok(())
            }
            (Err(_), Data::F32(builder)) => {
                builder.append_value(value as f32);
                Ok(())
            }
            (Err(_), _) => Err(E::invalid_value(serde::de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match &mut self.column.data {
            Data::F64(builder) => builder.append_value(value),
            Data::F32(builder) => builder.append_value(value as f32),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        match &mut self.column.data {
            Data::Text(builder) => builder.append_value(value),
            Data::Bytes(builder) => match base64::engine::general_purpose::STANDARD.decode(value) {
                Ok(bytes) => builder.append_value(bytes),
                Err(error) => return Err(E::custom(format!("not base64: {error}"))),
            },
            Data::Time(builder) => match value.parse::<DateTime<Utc>>() {
                Ok(time) => builder.append_value(time.timestamp_micros()),
                Err(error) => return Err(E::custom(format!("{value:?} is not an RFC 3339 time: {error}"))),
            },
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str(value), &self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Value { column, path } = self;
        let Data::List { offsets, nulls, item } = &mut column.data else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &Value { column, path }));
        };
        path.push(Step::Item(0));
        let mut index = 0;
        while seq.next_element_seed(Value { column: item, path })?.is_some() {
            index += 1;
            path.set(Step::Item(index));
        }
        path.pop();
        let end = i32::try_from(item.len()).map_err(|_| A::Error::custom("too many items for one batch"))?;
        offsets.push(end);
        nulls.append_non_null();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Value { column, path } = self;
        let Data::Struct { fields, len, nulls, columns } = &mut column.data else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &Value { column, path }));
        };
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            let Some(index) = fields.iter().position(|field| *field.name() == name) else {
                map.next_value::<serde::de::IgnoredAny>()?;
                continue;
            };
            path.push(Step::Member(name.into_owned()));
            if columns[index].len() > *len {
                return Err(A::Error::custom("is given twice"));
            }
            map.next_value_seed(Value { column: &mut columns[index], path })?;
            path.pop();
        }
        for (field, column) in fields.iter().zip(columns.iter_mut()) {
            if column.len() == *len && !column.append_absent() {
                path.push(Step::Member(field.name().clone()));
                return Err(A::Error::custom("is required and missing"));
            }
        }
        *len += 1;
        nulls.append_non_null();
        Ok(())
    }
}
