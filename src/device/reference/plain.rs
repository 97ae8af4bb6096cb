//! The part of a device that plain loops on host memory are good enough for: buffers, transfers, lookups, losses, metrics,
//! routing of experts, distances of states. Loops are in the files beside this one; here blocks become slices.

/// The methods of [`Device`](crate::device::Device) that every device with a field `memory: HostMemory<T>` answers alike.
/// The types are those that the trait's signatures name, so they are in scope where it is implemented.
macro_rules! plain_methods {
    () => {
        fn buffer(len: usize) -> Vec<T> {
            host_buffer(len)
        }

        fn clear_buffer(buffer: &mut Vec<T>) {
            buffer.fill(T::ZERO);
        }

        fn read_buffer(buffer: &Vec<T>) -> Vec<T> {
            buffer.clone()
        }

        fn write_buffer(buffer: &mut Vec<T>, values: &[T]) {
            buffer.copy_from_slice(values);
        }

        fn space(&mut self) -> &mut Space {
            &mut self.memory.space
        }

        fn reserve(&mut self) {
            self.memory.reserve();
        }

        fn put(&mut self, values: impl Iterator<Item = i32>) -> Indices {
            self.memory.put(values)
        }

        fn upload(&mut self, from: &[T], to: Block) {
            self.memory.get_mut(to).copy_from_slice(from);
        }

        fn download(&self, from: Block, to: &mut [T]) {
            to.copy_from_slice(self.memory.get(from));
        }

        fn fill(&mut self, to: Block, value: T) {
            self.memory.get_mut(to).fill(value);
        }

        fn copy_runs(&mut self, shape: (usize, usize), from: Runs, to: Runs) {
            let ([x], [y]) = self.memory.split([from.block], [to.block]);
            $crate::device::reference::tables::each_run(shape, from, to, |x_at, y_at| {
                y[y_at].copy_from_slice(&x[x_at])
            });
        }

        fn broadcast(&mut self, params: &Params<Self>, table: ParamId, y: Block) {
            $crate::device::reference::tables::broadcast(params.get(table), self.memory.get_mut(y));
        }

        fn embed(
            &mut self,
            params: &Params<Self>,
            table: ParamId,
            tokens: Indices,
            shape: (usize, usize),
            scale: f64,
            y: Block,
        ) {
            let (tokens, [], [y]) = self.memory.split_with(tokens, [], [y]);
            let (table, width) = (params.get(table), params.shape(table).1);
            $crate::device::reference::tables::embed(table, width, tokens, shape, scale, y);
        }

        fn cross_entropy(
            &mut self,
            likelihood: Likelihood,
            labels: Indices,
            seq_len: usize,
            logits: Block,
            loss: Block,
            unit_grad: Block,
        ) {
            let (labels, [logits], [loss, unit_grad]) = self.memory.split_with(labels, [logits], [loss, unit_grad]);
            $crate::device::reference::losses::cross_entropy(likelihood, labels, seq_len, logits, loss, unit_grad);
        }

        fn bce_with_logits(&mut self, column: (usize, usize), x: Block, target: Block, loss: Block, unit_grad: Block) {
            let ([x, target], [loss, unit_grad]) = self.memory.split([x, target], [loss, unit_grad]);
            $crate::device::reference::losses::bce_with_logits(column, x, target, loss, unit_grad);
        }

        fn bce_backward(&mut self, column: (usize, usize), d_loss: Block, unit_grad: Block, d_x: Block) {
            let ([d_loss, unit_grad], [d_x]) = self.memory.split([d_loss, unit_grad], [d_x]);
            $crate::device::reference::losses::bce_backward(column, d_loss, unit_grad, d_x);
        }

        fn loss_backward(&mut self, d_loss: Block, unit_grad: Block, d_x: Block) {
            let ([d_loss, unit_grad], [d_x]) = self.memory.split([d_loss, unit_grad], [d_x]);
            $crate::device::reference::losses::loss_backward(d_loss, unit_grad, d_x);
        }

        fn score(
            &mut self,
            labels: Indices,
            seq_len: usize,
            logits: Block,
            correct: Block,
            labelled: Block,
            exact: Block,
        ) {
            let (labels, [logits], [correct, labelled, exact]) =
                self.memory.split_with(labels, [logits], [correct, labelled, exact]);
            $crate::device::reference::losses::score(labels, seq_len, logits, [correct, labelled, exact]);
        }

        fn predict(&self, logits: Block, tokens: &mut [u8]) {
            $crate::device::reference::losses::predict(self.memory.get(logits), tokens);
        }

        fn continue_target(&mut self, is_last: Indices, q: Block, target: Block) {
            let (is_last, [q], [target]) = self.memory.split_with(is_last, [q], [target]);
            $crate::device::reference::losses::continue_target(is_last, q, target);
        }

        fn route(&mut self, experts: usize, per_row: usize, logits: Block, gates: Block) {
            let ([logits], [gates]) = self.memory.split([logits], [gates]);
            $crate::device::reference::experts::route(experts, per_row, logits, gates);
        }

        fn route_backward(&mut self, experts: usize, gates: Block, d_gates: Block, d_logits: Block) {
            let ([gates, d_gates], [d_logits]) = self.memory.split([gates, d_gates], [d_logits]);
            $crate::device::reference::experts::route_backward(experts, gates, d_gates, d_logits);
        }

        fn chosen(&self, experts: usize, gates: Block, lists: &mut Vec<u32>) {
            $crate::device::reference::experts::chosen(experts, self.memory.get(gates), lists);
        }

        fn gather(&mut self, rows: &[u32], width: usize, x: Block, y: Block) {
            let ([x], [y]) = self.memory.split([x], [y]);
            $crate::device::reference::experts::gather(rows, width, x, y);
        }

        fn scatter(&mut self, rows: &[u32], width: usize, dy: Block, dx: Block) {
            let ([dy], [dx]) = self.memory.split([dy], [dx]);
            $crate::device::reference::experts::scatter(rows, width, dy, dx);
        }

        fn add_expert(&mut self, choice: Choice<'_>, x: Block, y: Block) {
            let ([x, gates], [y]) = self.memory.split([x, choice.gates], [y]);
            $crate::device::reference::experts::add_expert(choice, gates, x, y);
        }

        fn add_expert_backward(
            &mut self,
            choice: Choice<'_>,
            dy: Block,
            x: Block,
            dx: Option<Block>,
            d_gates: Option<Block>,
        ) {
            if let Some(dx) = dx {
                let ([dy, gates], [dx]) = self.memory.split([dy, choice.gates], [dx]);
                $crate::device::reference::experts::add_expert_dx(choice, gates, dy, dx);
            }
            if let Some(d_gates) = d_gates {
                let ([dy, x], [d_gates]) = self.memory.split([dy, x], [d_gates]);
                $crate::device::reference::experts::add_expert_d_gates(choice, dy, x, d_gates);
            }
        }

        fn load_balance(&mut self, picks: (usize, &[u32]), weight: f64, logits: Block, loss: Block, unit_grad: Block) {
            let ([logits], [loss, unit_grad]) = self.memory.split([logits], [loss, unit_grad]);
            $crate::device::reference::experts::load_balance(picks, weight, logits, loss, unit_grad);
        }

        fn distance(&self, before: Block, after: Block, sequences: usize, sums: &mut [[f64; 2]]) {
            $crate::device::reference::fixed_point::distance(
                self.memory.get(before),
                self.memory.get(after),
                sequences,
                sums,
            );
        }

        fn residual_product(&self, p: [Block; 2], q: [Block; 2], sequences: usize, sums: &mut [f64]) {
            let blocks = [p, q].map(|pair| pair.map(|block| self.memory.get(block)));
            $crate::device::reference::fixed_point::residual_product(blocks, sequences, sums);
        }
    };
}
/// The same of [`HostDevice`](crate::device::HostDevice): where the elements are.
macro_rules! host_methods {
    () => {
        fn values(buffer: &Vec<T>) -> &[T] {
            buffer
        }

        fn values_mut(buffer: &mut Vec<T>) -> &mut [T] {
            buffer
        }

        fn view(&self, block: Block) -> &[T] {
            self.memory.get(block)
        }

        fn slices<const R: usize, const W: usize>(
            &mut self,
            reads: [Block; R],
            writes: [Block; W],
        ) -> ([&[T]; R], [&mut [T]; W]) {
            self.memory.split(reads, writes)
        }
    };
}
pub(in crate::device) use {host_methods, plain_methods};
