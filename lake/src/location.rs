//! Where a lake lies: a folder on local disk or a prefix of an S3 bucket.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::client::{Certificate, ClientOptions};
use object_store::path::Path;
use url::Url;

use crate::error::{Context as _, LakeError, Result};
use crate::local::DurableLocal;

/// How to reach an S3 store, beside the usual `AWS_*` environment variables, which these override.
#[derive(Clone, Default)]
pub struct S3Options {
    /// Endpoint of a store that is not AWS, such as `http://127.0.0.1:9000`. An http endpoint allows plain HTTP.
    pub endpoint: Option<String>,
    /// Region; AWS_REGION, else us-east-1.
    pub region: Option<String>,
    /// Buckets as host names instead of path style.
    pub virtual_hosted: bool,
    /// PEM file of certificate authorities to trust besides the system's; else AWS_CA_BUNDLE.
    pub ca_file: Option<PathBuf>,
    /// Access key, if not from the environment.
    pub access_key_id: Option<String>,
    /// Secret key, if not from the environment.
    pub secret_access_key: Option<String>,
}

impl std::fmt::Debug for S3Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("virtual_hosted", &self.virtual_hosted)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// A lake's place: the store of everything under its scheme and authority, and the lake's path in it.
#[derive(Debug, Clone)]
pub struct Location {
    /// URL of the lake's folder, ending in `/`.
    pub url: Url,
    /// Store rooted at `/` or at the bucket.
    pub root: Arc<dyn ObjectStore>,
    /// The lake's path in the store.
    pub prefix: Path,
}

impl Location {
    /// Parses a path, a `file://` URL or an `s3://bucket/prefix` URL, and builds the store.
    ///
    /// # Errors
    /// When the scheme is another one, or S3 settings are incomplete.
    pub fn open(uri: &str, s3: &S3Options) -> Result<Location> {
        if uri.trim().is_empty() {
            let what = "the lake's place is empty: give a folder, file:///… or s3://bucket/prefix";
            return Err(LakeError::Usage(what.to_string()));
        }
        if uri.starts_with("s3://") || uri.starts_with("s3a://") {
            return s3_location(uri, s3);
        }
        if let Some((scheme, _)) = uri.split_once("://")
            && scheme != "file"
        {
            return Err(LakeError::Usage(format!(
                "lake {uri}: scheme {scheme:?} is not known; give a folder, file:///… or s3://bucket/prefix"
            )));
        }
        Location::local(FsPath::new(uri.strip_prefix("file://").unwrap_or(uri)))
    }

    /// A folder on local disk; the first write creates it.
    pub fn local(folder: &FsPath) -> Result<Location> {
        let opening = || format!("opening lake folder {}", folder.display());
        let folder =
            if folder.exists() { folder.canonicalize() } else { std::path::absolute(folder) }.context(opening)?;
        let url = Url::from_directory_path(&folder)
            .map_err(|()| LakeError::Usage(format!("lake folder {} is no absolute path", folder.display())))?;
        Location::with_store(url, Arc::new(DurableLocal::new()))
    }

    /// A lake under `url` in a store of the caller's, rooted at `/` or the bucket.
    pub fn with_store(mut url: Url, root: Arc<dyn ObjectStore>) -> Result<Location> {
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        let prefix = Path::from_url_path(url.path()).context(|| format!("lake {url}: path"))?;
        Ok(Location { url, root, prefix })
    }

    /// The folder on local disk, if the lake lies there.
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok()).flatten()
    }
}

fn s3_location(uri: &str, options: &S3Options) -> Result<Location> {
    let url = Url::parse(&uri.replacen("s3a://", "s3://", 1)).context(|| format!("lake {uri}"))?;
    let bucket = url.host_str().unwrap_or_default().to_string();
    if bucket.is_empty() {
        return Err(LakeError::Usage(format!("lake {uri}: the bucket is missing; give s3://bucket/prefix")));
    }
    let mut builder =
        AmazonS3Builder::from_env().with_bucket_name(&bucket).with_virtual_hosted_style_request(options.virtual_hosted);
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    let endpoint = options
        .endpoint
        .clone()
        .or_else(|| ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|v| std::env::var(v).ok()));
    let mut client = ClientOptions::new();
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint);
        client = client.with_allow_http(endpoint.starts_with("http://"));
    }
    if let (Some(key), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    let ca_file = options.ca_file.clone().or_else(|| std::env::var_os("AWS_CA_BUNDLE").map(PathBuf::from));
    if let Some(file) = ca_file {
        let pem = std::fs::read(&file).context(|| format!("reading certificate authorities {}", file.display()))?;
        let bundle = Certificate::from_pem_bundle(&pem).context(|| format!("certificates in {}", file.display()))?;
        client = bundle.into_iter().fold(client, ClientOptions::with_root_certificate);
    }
    let store = builder.with_client_options(client).build().context(|| format!("lake {uri}: S3 settings"))?;
    Location::with_store(url, Arc::new(store))
}
