"""A Cupola server that answers with canned numbers, for tests of the client.

It runs the generated servicer classes on a free port, keeps what it was sent,
and can be told to fail, to stall, or to put its data into chunks.
"""

import threading
from concurrent import futures

import grpc
import numpy as np

from cupola import _protos as protos
from fake_pairs import FakeJobs, FakePairs

MODEL = protos.catalog.ModelInfo(
    name="tiny",
    state=protos.catalog.RESIDENT,
    family="llama",
    digest=b"\x01" * 32,
    dtype=protos.tensor.FLOAT32,
    device="cpu",
    n_layers=2,
    d_model=4,
    n_heads=2,
    n_kv_heads=1,
    d_head=2,
    d_mlp=8,
    d_vocab=100,
    n_ctx=16,
    default_prepend_bos=True,
    bos_token_id=0,
    resident_processing=[protos.common.RAW],
    weight_bytes=1000,
    resident_bytes=3 << 20,
    hook_points=[
        protos.catalog.HookPointInfo(name="hook_embed", shape=[4]),
        protos.catalog.HookPointInfo(
            name="blocks.0.attn.hook_pattern", shape=[2, -1]
        ),
    ],
)


def dictionary(name, kind=protos.catalog.SAE, **fields):
    return protos.catalog.DictionaryInfo(
        name=name,
        state=protos.catalog.RESIDENT,
        kind=kind,
        model="tiny",
        architecture="topk",
        d_in=4,
        d_out=4,
        d_sae=50,
        k=3,
        hook_in="blocks.0.hook_resid_post",
        hook_out="blocks.0.hook_resid_post",
        dtype=protos.tensor.FLOAT32,
        processing=protos.common.RAW,
        **fields,
    )


DICTIONARIES = [
    dictionary(
        "tiny/sae",
        measured=protos.catalog.Measurement(
            tokens=255, l0=3, fvu=0.25, dead_latents=7
        ),
        expect=protos.catalog_config.DictionaryEntry.Expect(l0=3.0),
        warnings=["FVU is far off"],
    ),
    dictionary("tiny/pair", protos.catalog.PAIR),
]

# The tokens a text is made of here: its words, the space belonging to the
# next word; a token's id is its place in this list, which starts with BOS.
WORDS = [b"<bos>", b"The", b" sky", b" is", b" blue", b"\xe6", b"<b>&", b"\n"]


def tensor(array, dtype):
    wire = {
        protos.tensor.FLOAT32: "<f4",
        protos.tensor.FLOAT16: "<f2",
        protos.tensor.BFLOAT16: "<u2",
        protos.tensor.INT32: "<i4",
        protos.tensor.UINT32: "<u4",
        protos.tensor.INT64: "<i8",
    }[dtype]
    array = np.ascontiguousarray(array)
    if dtype == protos.tensor.BFLOAT16:
        array = (array.astype("<f4").view("<u4") >> 16).astype(wire)
    return protos.tensor.Tensor(
        dtype=dtype, shape=array.shape, data=array.astype(wire).tobytes()
    )


class FakeServer(
    FakePairs,
    protos.catalog_grpc.CatalogServicer,
    protos.analysis_grpc.AnalysisServicer,
    protos.admin_grpc.AdminServicer,
):
    """`requests` holds (method, request, metadata as a dict) of every call."""

    def __init__(self):
        self.requests = []
        self.failures = []  # (StatusCode, message, trailing metadata), in turn
        self.stall = None  # an Event to wait for before answering
        self.stalled = threading.Event()
        self.cancelled = threading.Event()
        self.chunk_bytes = None  # puts all data into chunks of this size
        self.drop_last_chunk = False
        # Of Generate: tokens sent; after how many to wait for the client to
        # leave; tokens that it says there were and sends not.
        self.sent, self.hold_after, self.extra_tokens = 0, None, 0
        self.extra_chunk = b""
        self.cached = set()
        self.words = list(WORDS)
        self.health = b"\x08\x01"
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        protos.catalog_grpc.add_CatalogServicer_to_server(self, self._server)
        protos.analysis_grpc.add_AnalysisServicer_to_server(self, self._server)
        protos.admin_grpc.add_AdminServicer_to_server(self, self._server)
        self.jobs = FakeJobs(self._enter)
        protos.jobs_grpc.add_JobsServicer_to_server(self.jobs, self._server)
        check = grpc.unary_unary_rpc_method_handler(
            lambda request, context: self.health
        )
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "grpc.health.v1.Health", {"Check": check}
                )
            ]
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.target = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self):
        if self.stall:
            self.stall.set()
        self._server.stop(None).wait()

    def last(self, method):
        """The newest request of `method` and its metadata."""
        found = [entry for entry in self.requests if entry[0] == method]
        return found[-1][1:]

    def _enter(self, method, request, context):
        metadata = dict(context.invocation_metadata())
        self.requests.append((method, request, metadata))
        if self.failures:
            code, message, trailing = self.failures.pop(0)
            context.set_trailing_metadata(trailing)
            context.abort(code, message)
        if self.stall:
            context.add_callback(self.cancelled.set)
            self.stalled.set()
            self.stall.wait()

    # Catalog.

    def _describe(self, name, context):
        if name == MODEL.name:
            return protos.catalog.DescribeResponse(model=MODEL)
        for entry in DICTIONARIES:
            if entry.name == name:
                return protos.catalog.DescribeResponse(dictionary=entry)
        return context.abort(
            grpc.StatusCode.NOT_FOUND,
            f"name {name!r}: there are tiny, tiny/sae",
        )

    def List(self, request, context):
        self._enter("List", request, context)
        answer = protos.catalog.ListResponse(
            models=[MODEL], dictionaries=DICTIONARIES
        )
        del answer.models[0].hook_points[:]
        return answer

    def Describe(self, request, context):
        self._enter("Describe", request, context)
        return self._describe(request.name, context)

    def Load(self, request, context):
        self._enter("Load", request, context)
        return self._describe(request.name, context)

    def Unload(self, request, context):
        self._enter("Unload", request, context)
        return self._describe(request.name, context)

    def SelfCheck(self, request, context):
        self._enter("SelfCheck", request, context)
        return self._describe(request.name, context)

    # Admin.

    def GetServerInfo(self, request, context):
        self._enter("GetServerInfo", request, context)
        return protos.admin.ServerInfo(
            version="0.1", torch_version="2.13.0", devices=["cpu"], requests=5
        )

    def GetCacheStatistics(self, request, context):
        self._enter("GetCacheStatistics", request, context)
        return protos.admin.CacheStatistics(
            enabled=True, hits=3, misses=4, disk_bytes=2048
        )

    def ClearCache(self, request, context):
        self._enter("ClearCache", request, context)
        self.cached.clear()
        return protos.admin.CacheStatistics(enabled=True)

    # Analysis.

    def _ids(self, prompts):
        bos = not prompts.HasField("prepend_bos") or prompts.prepend_bos
        answer = []
        for prompt in prompts.prompts:
            if prompt.WhichOneof("content") == "tokens":
                answer.append(list(prompt.tokens.ids))
                continue
            ids, rest = [0] if bos else [], prompt.text.encode()
            while rest:
                for index, word in enumerate(self.words):
                    if rest.startswith(word):
                        ids.append(index)
                        rest = rest[len(word) :]
                        break
                else:
                    raise ValueError(f"no word for {rest!r}")
            answer.append(ids)
        return answer

    def Tokenize(self, request, context):
        self._enter("Tokenize", request, context)
        return protos.analysis.TokenizeResponse(
            prompts=[
                protos.analysis.TokenizeResponse.Tokens(
                    ids=ids,
                    pieces=[self.words[index] for index in ids],
                    text=b"".join(self.words[index] for index in ids),
                )
                for ids in self._ids(request.prompts)
            ]
        )

    def _positions(self, message, prompts):
        """The chosen token indices of each prompt."""
        kind = message.WhichOneof("selection")
        chosen = []
        for i, ids in enumerate(prompts):
            if kind is None:
                chosen.append(list(range(len(ids))))
                continue
            values = (
                message.every_prompt.values
                if kind == "every_prompt"
                else message.per_prompt.lists[i].values
            )
            chosen.append([v % len(ids) for v in values])
        return chosen

    def _provenance(self, request, dictionary_name=""):
        key = request.SerializeToString(deterministic=True)
        cached = key in self.cached
        self.cached.add(key)
        has_prompts = request.HasField("prompts")
        return protos.common.Provenance(
            token_ids=[
                protos.common.TokenIds(ids=ids)
                for ids in (self._ids(request.prompts) if has_prompts else [])
            ],
            model="tiny",
            model_digest=b"\x01" * 32,
            dictionary=dictionary_name,
            dictionary_digest=b"\x02" * 32,
            dtype=protos.tensor.FLOAT32,
            processing=request.processing or protos.common.RAW,
            from_cache=cached,
            seconds=protos.common.StageSeconds(
                lookup=0.001, queue=0.002, compute=0.25, total=0.5
            ),
        )

    def _stream(self, kind, header, tensors):
        """The header, with its data moved into chunks where that is asked."""
        if self.chunk_bytes is None:
            yield kind(header=header)
            return
        data = b"".join(tensor.data for tensor in tensors)
        header.provenance.chunked_bytes = len(data)
        for item in tensors:
            item.data = b""
        yield kind(header=header)
        starts = list(range(0, len(data), self.chunk_bytes))
        for start in starts[: -1 if self.drop_last_chunk else None]:
            yield kind(chunk=data[start : start + self.chunk_bytes])
        if self.extra_chunk:
            yield kind(chunk=self.extra_chunk)

    def GetActivations(self, request, context):
        self._enter("GetActivations", request, context)
        prompts = self._ids(request.prompts)
        positions = self._positions(request.positions, prompts)
        header = protos.analysis.ActivationsResponse.Header(
            provenance=self._provenance(request)
        )
        for number, hook in enumerate(request.hooks):
            entry = header.hooks.add(name=hook.replace("embed0", "hook_embed"))
            for ids, chosen in zip(prompts, positions):
                rows = activations(ids, number)[chosen]
                entry.prompts.append(tensor(rows, request.dtype))
        header.positions.extend(
            tensor(np.array(chosen), protos.tensor.INT32)
            for chosen in positions
        )
        tensors = [t for hook in header.hooks for t in hook.prompts]
        yield from self._stream(
            protos.analysis.ActivationsResponse,
            header,
            tensors + list(header.positions),
        )

    def GetFeatures(self, request, context):
        self._enter("GetFeatures", request, context)
        if request.HasField("inputs"):
            count = request.inputs.shape[0]
            prompt, position = [0] * count, list(range(count))
            seeds = position
        else:
            prompts = self._ids(request.prompts)
            chosen = self._positions(request.positions, prompts)
            pairs = [(i, j) for i, js in enumerate(chosen) for j in js]
            prompt = [i for i, _ in pairs]
            position = [j for _, j in pairs]
            seeds = [prompts[i][j] for i, j in pairs]
        rows = [latents(seed) for seed in seeds]
        indptr = np.cumsum([0] + [len(row) for row in rows])
        header = protos.analysis.FeaturesResponse.Header(
            features=protos.common.SparseRows(
                indptr=tensor(indptr, protos.tensor.INT64),
                indices=tensor(
                    np.array([i for row in rows for i, _ in row]),
                    protos.tensor.UINT32,
                ),
                values=tensor(
                    np.array([v for row in rows for _, v in row]),
                    protos.tensor.FLOAT32,
                ),
                columns=50,
            ),
            prompt=tensor(np.array(prompt), protos.tensor.INT32),
            position=tensor(np.array(position), protos.tensor.INT32),
            provenance=self._provenance(request, request.dictionary),
        )
        sparse = header.features
        yield from self._stream(
            protos.analysis.FeaturesResponse,
            header,
            [
                sparse.indptr,
                sparse.indices,
                sparse.values,
                header.prompt,
                header.position,
            ],
        )

    def Generate(self, request, context):
        """Each sample of a prompt writes the words from its number on; a stop
        token among them ends it. The byte of a torn character is one of them."""
        self._enter("Generate", request, context)
        messages = protos.generate
        if self.hold_after:
            context.add_callback(self.cancelled.set)
        end = messages.GenerateResponse.End(
            provenance=self._provenance(request, "")
        )
        for i, _ in enumerate(request.prompts.prompts):
            prompt = end.prompts.add()
            for sample in range(request.samples):
                ids = [
                    (1 + sample + step) % len(self.words)
                    for step in range(request.max_new_tokens)
                ]
                stopped = [k for k, n in enumerate(ids) if n in request.stop.ids]
                ids = ids[: stopped[0] + 1] if stopped else ids
                for number in ids:
                    choice = messages.GenerateResponse.Choice(
                        id=number, piece=self.words[number], logprob=-number
                    )
                    token = messages.GenerateResponse.Token(
                        prompt=i,
                        sample=sample,
                        chosen=choice,
                        top=[choice] * request.top_logprobs,
                    )
                    yield messages.GenerateResponse(tokens=[token])
                    self.sent += 1
                    if self.hold_after == self.sent:
                        self.cancelled.wait(30)
                kept = ids[:-1] if stopped else ids
                prompt.samples.add(
                    tokens=len(ids) + self.extra_tokens,
                    finish=messages.GenerateResponse.STOP
                    if stopped
                    else messages.GenerateResponse.LENGTH,
                    text=b"".join(self.words[n] for n in kept).decode(
                        "utf-8", "replace"
                    ),
                )
        if not self.drop_last_chunk:
            yield messages.GenerateResponse(end=end)

    def Reconstruct(self, request, context):
        self._enter("Reconstruct", request, context)
        source = request.WhichOneof("source")
        if source == "prompts":
            ids = self._ids(request.prompts)
            chosen = self._positions(request.positions, ids)
            pairs = [(i, j) for i, js in enumerate(chosen) for j in js]
        elif source == "inputs":
            pairs = [(0, j) for j in range(request.inputs.shape[0])]
        else:
            pairs = [
                (0, j) for j in range(request.features.indptr.shape[0] - 1)
            ]
        rows = np.arange(len(pairs) * 4).reshape(-1, 4)
        header = protos.analysis.ReconstructResponse.Header(
            reconstruction=tensor(rows, protos.tensor.FLOAT32),
            l0=tensor(np.full(len(pairs), 3.0), protos.tensor.FLOAT32),
            prompt=tensor(np.array([i for i, _ in pairs]), protos.tensor.INT32),
            position=tensor(
                np.array([j for _, j in pairs]), protos.tensor.INT32
            ),
            fvu=float("nan"),
            mean_l0=3.0,
            provenance=self._provenance(request, request.dictionary),
        )
        if source == "prompts":
            header.target.CopyFrom(tensor(rows + 1, protos.tensor.FLOAT32))
            header.squared_error.CopyFrom(
                tensor(np.full(len(pairs), 4.0), protos.tensor.FLOAT32)
            )
            header.fvu = 0.25
        tensors = [header.reconstruction]
        if source == "prompts":
            tensors += [header.target, header.squared_error]
        tensors += [header.l0, header.prompt, header.position]
        yield from self._stream(
            protos.analysis.ReconstructResponse, header, tensors
        )


def activations(ids, number):
    """[tokens, 4]: all representable in bfloat16 and float16."""
    return np.array(
        [[index + 0.5, number, -index, 2.0] for index in ids], np.float32
    )


def latents(seed):
    """The (latent, activation) of a token id (or a row), ascending."""
    if seed == 0:
        return [(7, 900.0), (40, 300.0)]
    return [(seed, 1.0 + seed), (20, 2.0), (30 + seed, 0.5)]
