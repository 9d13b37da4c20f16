"""The fake server's answers about a pair of dictionaries, and its jobs."""

import grpc
import numpy as np

from cupola import _protos as protos

FLOAT32, FLOAT64 = protos.tensor.FLOAT32, protos.tensor.FLOAT64
INT32, INT64 = protos.tensor.INT32, protos.tensor.INT64
UINT32 = protos.tensor.UINT32
WIRE = {FLOAT32: "<f4", FLOAT64: "<f8", INT32: "<i4", INT64: "<i8", UINT32: "<u4"}
D_SAE, D_MODEL = 50, 4
K_IN, K_OUT = 3, 2
JOB = "job-1"


def tensor(array, dtype):
    array = np.ascontiguousarray(array).astype(WIRE[dtype])
    return protos.tensor.Tensor(
        dtype=dtype, shape=array.shape, data=array.tobytes()
    )


def block(row):
    """[K_OUT, K_IN] of a row of an answer; row 0 has an input latent less."""
    return np.array([[row + 1, -0.5, 0.25], [0.0, 2.0, -row]]) * (
        [1, 1, 0] if row == 0 else [1, 1, 1]
    )


def latents(row):
    """The active (input, output) latents of a row."""
    return [5, 7, -1 if row == 0 else 9], [20 + row, 3]


class FakePairs:
    """Mixed into the fake server, whose helpers it uses."""

    def _rows(self, request):
        if request.HasField("inputs"):
            count = request.inputs.shape[0]
            return [0] * count, list(range(count))
        ids = self._ids(request.prompts)
        chosen = self._positions(request.positions, ids)
        pairs = [(i, j) for i, js in enumerate(chosen) for j in js]
        return [i for i, _ in pairs], [j for _, j in pairs]

    def GetJacobian(self, request, context):
        self._enter("GetJacobian", request, context)
        prompt, position = self._rows(request)
        n = len(prompt)
        pairs = [latents(row) for row in range(n)]
        blocks = np.array([block(row) for row in range(n)])
        acts_in = np.tile([3.0, 2.0, 1.0], (n, 1))
        acts_in[0, 2] = 0
        header = protos.jacobian.JacobianResponse.Header(
            in_latents=tensor([first for first, _ in pairs], INT32),
            in_acts=tensor(acts_in, FLOAT32),
            out_latents=tensor([second for _, second in pairs], INT32),
            out_acts=tensor(np.tile([1.5, 0.5], (n, 1)), FLOAT32),
            values=tensor(blocks, FLOAT32),
            indptr=tensor(np.zeros(0), INT64),
            indices=tensor(np.zeros(0), UINT32),
            second_order=tensor(np.zeros(0), FLOAT32),
            mlp_output=tensor(np.zeros(0), FLOAT32),
            gradients=tensor(np.zeros(0), FLOAT32),
            source_position=tensor(
                np.zeros(n)
                if request.HasField("source_positions")
                else position,
                INT32,
            ),
            prompt=tensor(prompt, INT32),
            position=tensor(position, INT32),
            columns=D_SAE,
            output_dictionary=request.output_dictionary,
            output_dictionary_digest=b"\x03" * 32,
            provenance=self._provenance(request, request.dictionary),
        )
        if request.HasField("all_inputs"):
            # Two entries in every line: at an active and at an idle latent.
            lines = n * K_OUT
            header.values.CopyFrom(tensor(np.arange(1, 2 * lines + 1), FLOAT32))
            header.indptr.CopyFrom(tensor(2 * np.arange(lines + 1), INT64))
            header.indices.CopyFrom(tensor([5, 40] * lines, UINT32))
        if request.without_block:
            header.values.CopyFrom(tensor(np.zeros(0), FLOAT32))
        if request.second_order:
            header.second_order.CopyFrom(tensor(2 * blocks, FLOAT32))
        if request.mlp_output:
            rows = np.arange(n * D_MODEL).reshape(n, D_MODEL)
            header.mlp_output.CopyFrom(tensor(rows, FLOAT32))
        if request.gradients:
            header.gradients.CopyFrom(tensor(np.ones((n, 8)), FLOAT32))
        names = (
            "in_latents in_acts out_latents out_acts values indptr indices "
            "second_order mlp_output gradients source_position prompt position"
        )
        yield from self._stream(
            protos.jacobian.JacobianResponse,
            header,
            [getattr(header, name) for name in names.split()],
        )

    def _samples(self, request, prompt):
        """(row, in, out) of each sample, by prompt as the server answers."""
        if request.HasField("samples"):
            given = request.samples
            table = np.stack(
                [given.rows, given.in_latents, given.out_latents], 1
            ).astype(int)
            order = np.argsort(np.array(prompt)[table[:, 0]], kind="stable")
            return table[order], order
        table = [
            (row, latents(row)[0][i % 2], latents(row)[1][i % K_OUT])
            for row in range(len(prompt))
            for i in range(request.draw.per_token)
        ]
        return np.array(table), np.arange(len(table))

    def _send(self, kind, request, columns, prompt, position):
        header = kind.Header(
            prompt=tensor(prompt, INT32),
            position=tensor(position, INT32),
            provenance=self._provenance(request, request.dictionary),
            **columns,
        )
        names = [*columns, "prompt", "position"]
        yield from self._stream(
            kind, header, [getattr(header, name) for name in names]
        )

    def AblateDirections(self, request, context):
        self._enter("AblateDirections", request, context)
        prompt, position = self._rows(request)
        table, order = self._samples(request, prompt)
        deltas = np.ones(len(table))
        if request.samples.deltas:
            deltas = np.array(request.samples.deltas)[order]
        slope = table[:, 1] / 10
        columns = {
            "row": tensor(table[:, 0], INT32),
            "in_latent": tensor(table[:, 1], INT32),
            "out_latent": tensor(table[:, 2], INT32),
            "delta": tensor(deltas, FLOAT32),
            "before": tensor(np.full(len(table), 8.0), FLOAT32),
            "after": tensor(8.0 - deltas * slope, FLOAT32),
            "jacobian": tensor(slope, FLOAT32),
            "kind": tensor(np.arange(len(table)) % 3, INT32),
        }
        yield from self._send(
            protos.directions.DirectionAblationResponse,
            request,
            columns,
            prompt,
            position,
        )

    def Sweep(self, request, context):
        self._enter("Sweep", request, context)
        prompt, position = self._rows(request)
        table, _ = self._samples(request, prompt)
        n = len(table)
        strength = table[:, 1].astype(float)
        last = np.maximum(5, strength + 1)
        points = len(request.grid) or request.points
        grid = np.linspace(0, 1, points) * last[:, None]
        if request.grid:
            grid = np.tile(np.array(request.grid), (n, 1))
            last = grid[:, -1]
        kind = np.arange(n) % 3
        # A line; from the second kind on 0 below 1.
        curves = 2 * grid + 1
        curves[kind > 0] *= grid[kind > 0] >= 1
        zero = np.where(kind > 0, 0.0, np.nan)
        columns = {
            "row": tensor(table[:, 0], INT32),
            "in_latent": tensor(table[:, 1], INT32),
            "out_latent": tensor(table[:, 2], INT32),
            "strength": tensor(strength, FLOAT32),
            "last": tensor(last, FLOAT32),
            "kind": tensor(kind, INT32),
            "slope": tensor(np.full(n, 2.0), FLOAT32),
            "intercept": tensor(np.ones(n), FLOAT32),
            "zero_first": tensor(zero, FLOAT32),
            "zero_last": tensor(zero + 0.5, FLOAT32),
            "curves": tensor(
                curves if request.curves else np.zeros(0), FLOAT32
            ),
        }
        yield from self._send(
            protos.directions.SweepResponse, request, columns, prompt, position
        )


class FakeJobs(protos.jobs_grpc.JobsServicer):
    """Jobs that get on when they are watched."""

    def __init__(self, enter):
        self._enter = enter  # notes a call, and fails it where it should
        self.jobs = {}
        # Of the calls of Watch, in turn: the tokens done of each message, and
        # the status that ends the call.
        self.watched = []

    def _job(self, id, context):
        if id not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"job {id!r}: not known")
        return self.jobs[id]

    def AccumulateJacobian(self, request, context):
        self._enter("AccumulateJacobian", request, context)
        self.jobs[JOB] = protos.jobs.Job(
            id=JOB,
            kind="accumulate_jacobian",
            title=request.jacobian.dictionary,
            state=protos.jobs.Job.QUEUED,
            chunks=4,
            tokens=2000,
            seconds_left=-1,
            submitted_micros=1_700_000_000_000_000,
        )
        return self.jobs[JOB]

    def List(self, request, context):
        self._enter("ListJobs", request, context)
        return protos.jobs.ListJobsResponse(jobs=self.jobs.values())

    def Get(self, request, context):
        self._enter("GetJob", request, context)
        return self._job(request.id, context)

    def Watch(self, request, context):
        self._enter("Watch", request, context)
        job = self._job(request.id, context)
        steps, status = self.watched.pop(0) if self.watched else ([2000], None)
        states = protos.jobs.Job
        for tokens in steps:
            job.tokens_done, job.tokens_per_second = tokens, 500
            job.seconds_left = (job.tokens - tokens) / 500
            job.state = states.DONE if tokens == job.tokens else states.RUNNING
            yield job
        if status is not None:
            if status == grpc.StatusCode.INTERNAL:
                job.state, job.error = states.FAILED, "the disk is full"
                yield job
                return
            context.abort(status, "going away")

    def _ended(self, name, request, context, state):
        self._enter(name, request, context)
        job = self._job(request.id, context)
        job.state = state
        return job

    def Cancel(self, request, context):
        state = protos.jobs.Job.CANCELLED
        return self._ended("Cancel", request, context, state)

    def Resume(self, request, context):
        state = protos.jobs.Job.QUEUED
        return self._ended("Resume", request, context, state)

    def Delete(self, request, context):
        self._enter("Delete", request, context)
        self._job(request.id, context)
        del self.jobs[request.id]
        return protos.jobs.DeleteJobResponse()

    def GetJacobianTotals(self, request, context):
        self._enter("GetJacobianTotals", request, context)
        values = np.arange(K_OUT * D_SAE, dtype=float).reshape(K_OUT, D_SAE)
        order = np.argsort(-values.reshape(-1))[: request.top]
        above = [(values > limit).sum() for limit in request.thresholds]
        columns = values[:, list(request.columns)].T
        header = protos.jobs.JacobianTotalsResponse.Header(
            tokens=2000,
            d_out=K_OUT,
            d_in=D_SAE,
            float64=True,
            histogram_end=1.0,
            above=tensor(above, INT64),
            top_out=tensor(order // D_SAE, INT32),
            top_in=tensor(order % D_SAE, INT32),
            top_values=tensor(values.reshape(-1)[order], FLOAT64),
            rows=tensor(values[list(request.rows)], FLOAT64),
            columns=tensor(columns, FLOAT64),
            active=tensor([7, 8] if request.active else [], INT64),
            histogram=tensor([4, 3, 2, 1] if request.histogram else [], INT64),
            job=self._job(request.job, context),
        )
        yield protos.jobs.JacobianTotalsResponse(header=header)
