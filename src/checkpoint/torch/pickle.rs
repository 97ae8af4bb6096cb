//! A reader of pickles that runs nothing: it knows what PyTorch's tensors are made of and refuses everything else by name.
//!
//! A pickle is a program for a stack machine, whose instructions may call any function of Python. Here they build nodes of an
//! arena; the few functions that describe tensors make nodes of their own, and no other name is ever looked up. A node refers to
//! others by index, so neither depth nor sharing of a hostile pickle costs more than its length.

use std::collections::HashMap;

/// Bytes of a pickle: names and shapes of tensors take a few hundred each.
pub(super) const MAX_BYTES: u64 = 1 << 24;
/// PyTorch's own limit is 64; weights have at most a few axes.
const MAX_AXES: usize = 16;

/// Index of a node.
pub(super) type NodeId = usize;

/// A value of the pickle.
#[derive(Debug)]
pub(super) enum Node {
    /// None, a truth value, a number with a point: nothing that weights are found by.
    Plain,
    Int(i64),
    Text(String),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    Function(Function),
    Storage(Box<Storage>),
    Tensor(Box<TensorView>),
}

/// The names that a pickle may call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    OrderedDict,
    Tensor,
    Parameter,
    Storage(Element),
}

/// What a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Whole numbers or truth values, of so many bytes.
    Integer(u8),
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
            Self::F16 | Self::Bf16 => 2,
            Self::Integer(bytes) => bytes.into(),
        }
    }

    /// Its name in PyTorch; of whole numbers, what they are.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::Integer(_) => "whole numbers",
        }
    }
}

/// Memory that tensors are views of: an entry of the archive.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub element: Element,
    /// Its entry's name.
    pub key: String,
    /// Elements.
    pub len: u64,
}

/// A tensor: where in a storage its elements lie. Checked: all of them are inside, and no more than there are there.
#[derive(Clone, Debug)]
pub(super) struct TensorView {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A pickle's nodes, and the one that it is.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Pickle {
    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Reads a pickle, or says what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine =
            Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        loop {
            let at = machine.at;
            let Some(root) = machine.step().map_err(|what| format!("{what} (byte {at} of its pickle)"))? else {
                continue;
            };
            return Ok(Self { nodes: machine.nodes, root });
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<NodeId>,
    /// Heights of the stack at which groups of values begin.
    marks: Vec<usize>,
    memo: HashMap<u64, NodeId>,
}

impl Machine<'_> {
    /// One instruction; the value of the whole at the last.
    fn step(&mut self) -> Result<Option<NodeId>, String> {
        match self.byte()? {
            0x80 => drop(self.byte()?),                   // PROTO
            0x95 => drop(self.take(8)?),                  // FRAME
            b'.' => return self.pop().map(Some),          // STOP
            b'(' => self.marks.push(self.stack.len()),    // MARK
            b'N' | 0x88 | 0x89 => self.push(Node::Plain), // NONE, NEWTRUE, NEWFALSE
            b'G' => {
                self.take(8)?; // BINFLOAT
                self.push(Node::Plain);
            }
            b'J' => {
                let bytes = self.array()?; // BININT
                self.push(Node::Int(i32::from_le_bytes(bytes).into()));
            }
            b'K' => {
                let byte = self.byte()?; // BININT1
                self.push(Node::Int(byte.into()));
            }
            b'M' => {
                let bytes = self.array()?; // BININT2
                self.push(Node::Int(u16::from_le_bytes(bytes).into()));
            }
            0x8a => {
                let length = self.byte()?; // LONG1
                let node = long(self.take(length.into())?);
                self.push(node);
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?); // BINUNICODE
                self.text(length as usize)?;
            }
            0x8c => {
                let length = self.byte()?; // SHORT_BINUNICODE
                self.text(length.into())?;
            }
            b')' => self.push(Node::Tuple(Vec::new())), // EMPTY_TUPLE
            b']' => self.push(Node::List(Vec::new())),  // EMPTY_LIST
            b'}' => self.push(Node::Dict(Vec::new())),  // EMPTY_DICT
            b't' => {
                let items = self.group()?; // TUPLE
                self.push(Node::Tuple(items));
            }
            count @ 0x85..=0x87 => {
                // TUPLE1, TUPLE2, TUPLE3
                let mut items = (0x84..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?; // APPEND
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.group()?; // APPENDS
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?); // SETITEM
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.group()?; // SETITEMS
                self.set_items(&items)?;
            }
            b'q' => {
                let index = self.byte()?; // BINPUT
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?); // LONG_BINPUT
                self.remember(index.into())?;
            }
            0x94 => self.remember(self.memo.len() as u64)?, // MEMOIZE
            b'h' => {
                let index = self.byte()?; // BINGET
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?); // LONG_BINGET
                self.recall(index.into())?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?); // GLOBAL
                self.function(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?); // STACK_GLOBAL
                let (Node::Text(module), Node::Text(name)) = (&self.nodes[module], &self.nodes[name]) else {
                    return Err("a function's name is no text".into());
                };
                let (module, name) = (module.clone(), name.clone());
                self.function(&module, &name)?;
            }
            b'Q' => {
                let id = self.pop()?; // BINPERSID
                let storage = self.storage(id).ok_or("a persistent object that is no storage of a tensor")?;
                self.push(Node::Storage(storage.into()));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?); // REDUCE
                self.call(function, arguments)?;
            }
            b'b' => {
                // BUILD: what a dict of weights has beside its entries are versions of modules.
                self.pop()?;
                let target = self.stack.last().map(|&id| &self.nodes[id]);
                if !matches!(target, Some(Node::Dict(_))) {
                    return Err("an object with attributes of its own, which only Python could make".into());
                }
            }
            other => {
                return Err(format!("instruction {other:#04x}, which tensors do not need; save the state dict alone"));
            }
        }
        Ok(None)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N).map(|bytes| bytes.try_into().expect("so many were taken"))
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or("it ends in the middle")?;
        self.at += count;
        Ok(taken)
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("it ends in the middle")?;
        let line = str::from_utf8(&rest[..length]).map_err(|_| "a name that is not UTF-8")?.to_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = str::from_utf8(self.take(length)?).map_err(|_| "a text that is not UTF-8")?.to_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// The top of the stack, not below the newest mark.
    fn pop(&mut self) -> Result<NodeId, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => Ok(self.stack.pop().expect("it is above the floor")),
            false => Err("a value is missing".into()),
        }
    }

    /// What is above the newest mark.
    fn group(&mut self) -> Result<Vec<NodeId>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<NodeId>) -> Result<(), String> {
        match self.stack.last().map(|&id| &mut self.nodes[id]) {
            Some(Node::List(list)) => list.extend(items),
            _ => return Err("something is appended to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[NodeId]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.stack.last().map(|&id| &mut self.nodes[id]) {
            Some(Node::Dict(dict)) if rest.is_empty() => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err("entries are given to what is no dict".into()),
        }
        Ok(())
    }

    fn remember(&mut self, index: u64) -> Result<(), String> {
        let top = *self.stack.last().ok_or("a value is missing")?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<(), String> {
        let id = *self.memo.get(&index).ok_or("it recalls what it has not stored")?;
        self.stack.push(id);
        Ok(())
    }

    fn function(&mut self, module: &str, name: &str) -> Result<(), String> {
        use Element::{Bf16, F16, F32, F64, Integer};
        let function = match (module, name) {
            ("collections", "OrderedDict") => Function::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Function::Tensor,
            ("torch._utils", "_rebuild_parameter") => Function::Parameter,
            ("torch", "FloatStorage") => Function::Storage(F32),
            ("torch", "DoubleStorage") => Function::Storage(F64),
            ("torch", "HalfStorage") => Function::Storage(F16),
            ("torch", "BFloat16Storage") => Function::Storage(Bf16),
            ("torch", "LongStorage") => Function::Storage(Integer(8)),
            ("torch", "IntStorage") => Function::Storage(Integer(4)),
            ("torch", "ShortStorage") => Function::Storage(Integer(2)),
            ("torch", "ByteStorage" | "CharStorage" | "BoolStorage") => Function::Storage(Integer(1)),
            _ => {
                let shown: String = format!("{module}.{name}").escape_debug().take(100).collect();
                return Err(format!(
                    "it asks for `{shown}`, which is no part of tensors and could run anything; save the weights alone, with \
                     torch.save(model.state_dict(), …)"
                ));
            }
        };
        self.push(Node::Function(function));
        Ok(())
    }

    /// `("storage", type, key, location, elements)`.
    fn storage(&self, id: NodeId) -> Option<Storage> {
        let Node::Tuple(items) = &self.nodes[id] else { return None };
        let [kind, element, key, _, len] = items[..] else { return None };
        match [kind, element, key, len].map(|id| &self.nodes[id]) {
            [Node::Text(kind), Node::Function(Function::Storage(element)), Node::Text(key), Node::Int(len)]
                if kind == "storage" =>
            {
                Some(Storage { element: *element, key: key.clone(), len: u64::try_from(*len).ok()? })
            }
            _ => None,
        }
    }

    fn call(&mut self, function: NodeId, arguments: NodeId) -> Result<(), String> {
        let (Node::Function(function), Node::Tuple(arguments)) = (&self.nodes[function], &self.nodes[arguments]) else {
            return Err("a call of what is no function".into());
        };
        let made = match (function, &arguments[..]) {
            (Function::OrderedDict, []) => Node::Dict(Vec::new()),
            (Function::Tensor, [storage, offset, shape, strides, ..]) => {
                let Node::Storage(storage) = &self.nodes[*storage] else {
                    return Err("a tensor without storage".into());
                };
                Node::Tensor(self.view(storage, *offset, *shape, *strides)?.into())
            }
            (Function::Parameter, [tensor, ..]) if matches!(self.nodes[*tensor], Node::Tensor(_)) => {
                let tensor = *tensor;
                self.stack.push(tensor);
                return Ok(());
            }
            _ => return Err(format!("a call of {function:?} with other arguments than tensors have")),
        };
        self.push(made);
        Ok(())
    }

    fn view(&self, storage: &Storage, offset: NodeId, shape: NodeId, strides: NodeId) -> Result<TensorView, String> {
        let size = |id: NodeId| match self.nodes[id] {
            Node::Int(size) => usize::try_from(size).ok(),
            _ => None,
        };
        let sizes = |id: NodeId| match &self.nodes[id] {
            Node::Tuple(items) if items.len() <= MAX_AXES => {
                items.iter().map(|&id| size(id)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        let (Some(offset), Some(shape), Some(strides)) = (size(offset), sizes(shape), sizes(strides)) else {
            return Err("a tensor whose shape is none".into());
        };
        let view = TensorView { storage: storage.clone(), offset, shape, strides };
        if view.is_inside() {
            Ok(view)
        } else {
            Err("a tensor that reaches beyond its storage, or repeats elements of it".into())
        }
    }
}

impl TensorView {
    /// Elements; `None` where they cannot be counted.
    fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
    }

    fn is_inside(&self) -> bool {
        let Some(len) = self.len() else { return false };
        if self.shape.len() != self.strides.len() {
            return false;
        }
        if len == 0 {
            return true;
        }
        let mut axes = self.shape.iter().zip(&self.strides);
        let last =
            axes.try_fold(self.offset, |at, (&extent, &stride)| at.checked_add((extent - 1).checked_mul(stride)?));
        last.is_some_and(|last| (last as u64) < self.storage.len) && len as u64 <= self.storage.len
    }
}

/// A whole number of any length, little-endian; one that no size has is nothing that weights are found by.
fn long(bytes: &[u8]) -> Node {
    let mut whole = match bytes.last() {
        Some(last) if *last >= 0x80 => [0xff; 8],
        _ => [0; 8],
    };
    if bytes.len() > whole.len() {
        return Node::Plain;
    }
    whole[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(whole))
}
