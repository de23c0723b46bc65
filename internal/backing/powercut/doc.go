// Package powercut proves what is left of a directory after a power cut. A Recorder under a backing.Store notes what is done
// to the directory; a Replay builds, for any instant of the record, the directories that a disk could hold if the power failed
// there; a Script and a Ledger say what an application had been promised by then, and compare.
//
// # The disk
//
// It is the disk of a file system with an ordered journal of metadata, as ext4 and XFS are, at its worst:
//
//   - Metadata (names, explicit changes of size, punched holes, modes, owners, extended attributes) become durable in the order
//     in which they were made, up to some point. The point is not before the last change that a sync has covered. The sync of a
//     directory covers changes of names in it; that of a file covers its own attributes, size and holes, but not its name.
//   - Data written since the last sync of a file become durable in any order. Each sector of 512 bytes holds what it held at the
//     last sync, or after any one of the writes since.
//   - A write that makes a file longer leaves the size as it was, or makes it what any such write made it, or what one of them
//     did up to a page, whether the data reached the disk or not. Where they did not, the file reads zeros.
//   - A truncation or a punched hole that did not become durable may still have cleared the rest of the page in which it begins,
//     or ends, as the kernel does in memory before. Data written where something was cut off or punched out are not seen if the
//     cut or the hole itself was lost.
//
// Access and modification times are not modelled.
package powercut
