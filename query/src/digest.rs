//! The digest of a dataset: SHA-256 over a canonical encoding of its schema and its rows in order.
//!
//! It depends on column names, types, values, nulls and the order of rows, and on nothing else: not on how rows are
//! cut into batches or files, how strings are laid out (`Utf8`, `Utf8View`, dictionaries), nor which columns a plan
//! could prove to hold no nulls.
//!
//! # Format
//! All integers are big-endian; `text` is a u64 length and that many bytes of UTF-8.
//! ```text
//! digest  = SHA-256("webdancer dataset 1\n"  columns:u32  (name:text type:text)*  (0x01 row)*  0x00  rows:u64)
//! row     = one value per column
//! value   = 0x00                                     null
//!         | 0x01 payload
//! payload = bool                  0x00 | 0x01
//!         | integers, date, time, timestamp, duration   two's complement, in the width of the type
//!         | decimal               two's complement, 16 (32) bytes
//!         | float                 IEEE 754; −0.0 as 0.0, every NaN as the quiet NaN with no payload
//!         | utf8, binary          u64 length, bytes
//!         | list                  u64 count, that many values
//!         | struct                one value per field
//! type    = bool | int8 … int64 | uint8 … uint64 | float32 | float64 | decimal128(p,s) | decimal256(p,s) | utf8
//!         | binary | date32 | date64 | time32(s|ms) | time64(us|ns) | timestamp(s|ms|us|ns[,zone])
//!         | duration(s|ms|us|ns) | null | list<type> | struct<"name":type,…>    names as JSON strings
//! ```
//! Every value is self-delimiting, so no two datasets share an encoding.

use arrow::array::{
    Array, ArrayRef, AsArray as _, BinaryArray, BooleanArray, Float32Array, Float64Array, ListArray, RecordBatch,
    StringArray, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef, TimeUnit};
use sha2::{Digest as _, Sha256};
use webdancer_schemas::digest::hex;

use crate::canonical::{canonical_batch, canonical_schema};
use crate::error::{QueryError, Result};

const PREFIX: &[u8] = b"webdancer dataset 1\n";
/// Encoded bytes gathered before they are hashed.
const CHUNK_BYTES: usize = 64 << 10;

/// Computes the digest of a dataset as its batches come, in row order.
#[derive(Debug, Clone)]
pub struct DatasetDigest {
    schema: SchemaRef,
    hash: Sha256,
    rows: u64,
}

impl DatasetDigest {
    /// The digest of a dataset with these columns and no rows yet.
    ///
    /// # Errors
    /// [`QueryError::Sql`] when a column is of a type without an encoding (map, union, interval), by name.
    pub fn new(schema: &Schema) -> Result<DatasetDigest> {
        let schema = canonical_schema(schema);
        let mut header = PREFIX.to_vec();
        header.extend((schema.fields().len() as u32).to_be_bytes());
        for field in schema.fields() {
            let name = type_name(field.data_type()).ok_or_else(|| {
                QueryError::Sql(format!(
                    "column {:?} is of type {}, which a dataset cannot have; cast it, or take parts of it",
                    field.name(),
                    field.data_type()
                ))
            })?;
            put_bytes(&mut header, field.name().as_bytes());
            put_bytes(&mut header, name.as_bytes());
        }
        Ok(DatasetDigest { schema, hash: Sha256::new_with_prefix(header), rows: 0 })
    }

    /// Adds the rows of a batch, which has the columns given to [`new`](DatasetDigest::new).
    ///
    /// # Errors
    /// When the batch has other columns.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        if canonical_schema(&batch.schema()).fields() != self.schema.fields() {
            return Err(QueryError::Sql("a batch has other columns than the dataset".to_string()));
        }
        let batch = canonical_batch(batch, &self.schema)?;
        let columns: Vec<Encoder<'_>> = batch.columns().iter().map(Encoder::new).collect::<Result<_>>()?;
        let mut bytes = Vec::with_capacity(CHUNK_BYTES * 2);
        for row in 0..batch.num_rows() {
            bytes.push(1);
            columns.iter().for_each(|column| column.encode(row, &mut bytes));
            if bytes.len() >= CHUNK_BYTES {
                self.hash.update(&bytes);
                bytes.clear();
            }
        }
        self.hash.update(&bytes);
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The digest, 64 hexadecimal digits.
    pub fn finish(mut self) -> String {
        self.hash.update([0]);
        self.hash.update(self.rows.to_be_bytes());
        hex(self.hash.finalize())
    }
}

/// The name of a type in the encoding, if it has one.
pub(crate) fn type_name(data_type: &DataType) -> Option<String> {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    Some(match data_type {
        DataType::Null => "null".to_string(),
        DataType::Boolean => "bool".to_string(),
        DataType::Int8 => "int8".to_string(),
        DataType::Int16 => "int16".to_string(),
        DataType::Int32 => "int32".to_string(),
        DataType::Int64 => "int64".to_string(),
        DataType::UInt8 => "uint8".to_string(),
        DataType::UInt16 => "uint16".to_string(),
        DataType::UInt32 => "uint32".to_string(),
        DataType::UInt64 => "uint64".to_string(),
        DataType::Float32 => "float32".to_string(),
        DataType::Float64 => "float64".to_string(),
        DataType::Decimal128(precision, scale) => format!("decimal128({precision},{scale})"),
        DataType::Decimal256(precision, scale) => format!("decimal256({precision},{scale})"),
        DataType::Utf8 => "utf8".to_string(),
        DataType::Binary => "binary".to_string(),
        DataType::Date32 => "date32".to_string(),
        DataType::Date64 => "date64".to_string(),
        DataType::Time32(of) => format!("time32({})", unit(of)),
        DataType::Time64(of) => format!("time64({})", unit(of)),
        DataType::Timestamp(of, None) => format!("timestamp({})", unit(of)),
        DataType::Timestamp(of, Some(zone)) => format!("timestamp({},{zone})", unit(of)),
        DataType::Duration(of) => format!("duration({})", unit(of)),
        DataType::List(field) => format!("list<{}>", type_name(field.data_type())?),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| {
                let name = serde_json::Value::String(field.name().clone());
                Some(format!("{name}:{}", type_name(field.data_type())?))
            });
            format!("struct<{}>", fields.collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => return None,
    })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_be_bytes());
    out.extend(bytes);
}

/// A column of a canonical type, ready to encode values of.
enum Encoder<'a> {
    Null,
    Bool(&'a BooleanArray),
    /// Values of one width, in native byte order.
    Fixed {
        nulls: Option<&'a NullBuffer>,
        bytes: &'a [u8],
        width: usize,
    },
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Utf8(&'a StringArray),
    Binary(&'a BinaryArray),
    List(&'a ListArray, Box<Encoder<'a>>),
    Struct(&'a StructArray, Vec<Encoder<'a>>),
}

impl<'a> Encoder<'a> {
    fn new(array: &'a ArrayRef) -> Result<Encoder<'a>> {
        let wrong = || QueryError::Sql(format!("a column of type {} has no encoding", array.data_type()));
        Ok(match array.data_type() {
            DataType::Null => Encoder::Null,
            DataType::Boolean => Encoder::Bool(array.as_boolean()),
            DataType::Float32 => Encoder::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Encoder::Float64(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Encoder::Utf8(array.as_string()),
            DataType::Binary => Encoder::Binary(array.as_binary()),
            DataType::List(_) => {
                let list = array.as_list();
                Encoder::List(list, Box::new(Encoder::new(list.values())?))
            }
            DataType::Struct(_) => {
                let fields = array.as_struct();
                Encoder::Struct(fields, fields.columns().iter().map(Encoder::new).collect::<Result<_>>()?)
            }
            data_type => {
                let width = data_type.primitive_width().ok_or_else(wrong)?;
                Encoder::Fixed { nulls: array.nulls(), bytes: fixed_bytes(array).ok_or_else(wrong)?, width }
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Encoder::Null => true,
            Encoder::Bool(array) => array.is_null(row),
            Encoder::Fixed { nulls, .. } => nulls.is_some_and(|nulls| nulls.is_null(row)),
            Encoder::Float32(array) => array.is_null(row),
            Encoder::Float64(array) => array.is_null(row),
            Encoder::Utf8(array) => array.is_null(row),
            Encoder::Binary(array) => array.is_null(row),
            Encoder::List(array, _) => array.is_null(row),
            Encoder::Struct(array, _) => array.is_null(row),
        }
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return out.push(0);
        }
        out.push(1);
        match self {
            Encoder::Null => {}
            Encoder::Bool(array) => out.push(u8::from(array.value(row))),
            Encoder::Fixed { bytes, width, .. } => {
                let value = &bytes[row * width..(row + 1) * width];
                if cfg!(target_endian = "little") { out.extend(value.iter().rev()) } else { out.extend(value) }
            }
            Encoder::Float32(array) => {
                let value = array.value(row);
                let bits = if value.is_nan() { 0x7fc0_0000 } else { (value + 0.0).to_bits() };
                out.extend(bits.to_be_bytes());
            }
            Encoder::Float64(array) => {
                let value = array.value(row);
                let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { (value + 0.0).to_bits() };
                out.extend(bits.to_be_bytes());
            }
            Encoder::Utf8(array) => put_bytes(out, array.value(row).as_bytes()),
            Encoder::Binary(array) => put_bytes(out, array.value(row)),
            Encoder::List(array, values) => {
                let offsets = array.value_offsets();
                let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                out.extend(((end - start) as u64).to_be_bytes());
                (start..end).for_each(|index| values.encode(index, out));
            }
            Encoder::Struct(_, fields) => fields.iter().for_each(|field| field.encode(row, out)),
        }
    }
}

/// Short hashes of rows or of some of their columns, to compare rows by.
pub(crate) struct RowHasher<'a> {
    columns: Vec<Encoder<'a>>,
}

impl<'a> RowHasher<'a> {
    /// Of the given columns of a batch with canonical types.
    pub(crate) fn new(batch: &'a RecordBatch, columns: &[usize]) -> Result<RowHasher<'a>> {
        let columns = columns.iter().filter_map(|index| batch.columns().get(*index)).map(Encoder::new);
        Ok(RowHasher { columns: columns.collect::<Result<_>>()? })
    }

    /// 128 bits of SHA-256 over the row's values.
    pub(crate) fn hash(&self, row: usize) -> u128 {
        let mut bytes = Vec::new();
        self.columns.iter().for_each(|column| column.encode(row, &mut bytes));
        let mut short = [0; 16];
        short.copy_from_slice(&Sha256::digest(&bytes)[..16]);
        u128::from_be_bytes(short)
    }
}

/// The values of a primitive array, without those that its slice leaves out.
fn fixed_bytes(array: &ArrayRef) -> Option<&[u8]> {
    arrow::array::downcast_primitive_array!(
        array => Some(array.values().inner().as_slice()),
        _ => None
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, Int32Array, Int64Array, ListArray, StringViewArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    fn digest(batches: &[RecordBatch]) -> String {
        let mut digest = DatasetDigest::new(&batches[0].schema()).unwrap();
        batches.iter().for_each(|batch| digest.update(batch).unwrap());
        digest.finish()
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn base() -> RecordBatch {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        batch(vec![
            ("name", Arc::new(StringArray::from(vec![Some("a"), None, Some("")]))),
            ("count", Arc::new(Int64Array::from(vec![Some(-1), Some(2), None]))),
            ("share", Arc::new(Float64Array::from(vec![0.5, 0.0, f64::NAN]))),
            ("list", Arc::new(lists)),
        ])
    }

    /// Computed by hand from the format: a golden value, so that digests stay what they are.
    #[test]
    fn the_format_is_what_is_documented() {
        let one = batch(vec![("x", Arc::new(Int32Array::from(vec![Some(258), None])) as ArrayRef)]);
        let mut bytes = b"webdancer dataset 1\n".to_vec();
        bytes.extend([0, 0, 0, 1]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, 0, 0, 0, 0, 0, 5]);
        bytes.extend(b"int32");
        bytes.extend([1, 1, 0, 0, 1, 2]);
        bytes.extend([1, 0]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(digest(&[one]), hex(Sha256::digest(bytes)));
    }

    #[test]
    fn layout_does_not_matter() {
        let whole = digest(&[base()]);
        assert_eq!(whole, digest(&[base().slice(0, 1), base().slice(1, 0), base().slice(1, 2)]));
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("")]));
        let dictionary: ArrayRef =
            Arc::new([Some("a"), None, Some("")].into_iter().collect::<DictionaryArray<Int32Type>>());
        for strings in [views, dictionary] {
            let mut columns = base().columns().to_vec();
            columns[0] = strings;
            let names = ["name", "count", "share", "list"];
            assert_eq!(whole, digest(&[batch(names.into_iter().zip(columns).collect())]));
        }
        let zeros = |values: Vec<f64>| digest(&[batch(vec![("x", Arc::new(Float64Array::from(values)) as ArrayRef)])]);
        assert_eq!(zeros(vec![0.0, f64::NAN]), zeros(vec![-0.0, -f64::NAN]));
        let zone = |zone: &str| {
            let times = TimestampMicrosecondArray::from(vec![1]).with_timezone(zone);
            digest(&[batch(vec![("t", Arc::new(times) as ArrayRef)])])
        };
        assert_eq!(zone("UTC"), zone("+00:00"));
    }

    #[test]
    fn every_difference_matters() {
        let names = ["name", "count", "share", "list"];
        let mut all = vec![digest(&[base()]), digest(&[base().slice(0, 2)])];
        let mut with = |index: usize, name: &str, column: ArrayRef| {
            let mut columns = base().columns().to_vec();
            columns[index] = column;
            let mut names = names;
            names[index] = name;
            all.push(digest(&[batch(names.into_iter().zip(columns).collect())]));
        };
        with(0, "name", Arc::new(StringArray::from(vec![Some("a"), Some(""), Some("")])));
        with(0, "name", Arc::new(StringArray::from(vec![Some("b"), None, Some("")])));
        with(0, "title", base().column(0).clone());
        with(1, "count", Arc::new(Int64Array::from(vec![Some(-1), Some(2), Some(0)])));
        with(1, "count", Arc::new(Int32Array::from(vec![Some(-1), Some(2), None])));
        with(2, "share", Arc::new(Float64Array::from(vec![0.5, 0.25, f64::NAN])));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, Some(vec![None])]);
        with(3, "list", Arc::new(lists));
        let swapped = base().project(&[1, 0, 2, 3]).unwrap();
        all.push(digest(&[swapped]));
        all.push(digest(&[base().slice(1, 2), base().slice(0, 1)]));
        all.push(digest(&[RecordBatch::new_empty(base().schema())]));
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn a_type_without_encoding_is_named() {
        let field = Field::new("span", DataType::Interval(arrow::datatypes::IntervalUnit::DayTime), true);
        let error = DatasetDigest::new(&Schema::new(vec![field])).unwrap_err().to_string();
        assert!(error.contains("\"span\"") && error.contains("Interval"), "{error}");
    }
}
