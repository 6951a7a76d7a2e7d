//! How much an image may ask for. Every limit is on by default; a caller can move each of them.
//!
//! Without limits 3 MB unpack to 3 GB (every peer surveyed), a manifest of any size is read into memory
//! (CVE-2023-25153), and two million entries fill the inode table.

/// The limits, in the units that their names say.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of an index, a manifest or a configuration.
    pub json_bytes: u64,
    /// Layers of one image.
    pub layers: usize,
    /// Indexes within indexes.
    pub index_depth: usize,
    /// Manifests of one index, and images in one archive.
    pub manifests: usize,
    /// Entries of all layers together.
    pub entries: u64,
    /// Bytes of one entry's name, and of a link's target.
    pub name_bytes: usize,
    /// Components of one entry's name.
    pub name_components: usize,
    /// Bytes of one entry's extended header (PAX records, GNU long name).
    pub header_bytes: u64,
    /// Bytes of one extended attribute's value.
    pub xattr_bytes: usize,
    /// Bytes of the names and attributes of all directories, which are held until the last layer is done.
    pub directory_bytes: u64,
    /// Bytes of all files of all layers, holes counted.
    pub total_bytes: u64,
    /// Times by which a layer may grow when inflated. No real layer comes near; bombs live near 1,000 (deflate's best
    /// is 1,032).
    pub inflate_ratio: u64,
    /// Bytes to which any layer may inflate, however small it is.
    pub inflate_free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json_bytes: 4 << 20,
            layers: 512,
            index_depth: 4,
            manifests: 4096,
            entries: 2_000_000,
            name_bytes: 4095,
            name_components: 512,
            header_bytes: 1 << 20,
            xattr_bytes: 64 << 10,
            directory_bytes: 128 << 20,
            total_bytes: 64 << 30,
            inflate_ratio: 200,
            inflate_free: 1 << 30,
        }
    }
}

impl Limits {
    /// The most bytes that a layer of `compressed` bytes may inflate to.
    pub fn inflated(&self, compressed: u64) -> u64 {
        self.inflate_free.max(compressed.saturating_mul(self.inflate_ratio)).min(self.stream_bytes())
    }

    /// The most bytes of a tar stream: its files and, for each entry, a generous header.
    fn stream_bytes(&self) -> u64 {
        self.total_bytes.saturating_add(self.entries.saturating_mul(4096))
    }
}
