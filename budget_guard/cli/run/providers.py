"""The environment variables in which programs look for a provider's address and key.

Where a variable is read: ``*_BASE_URL`` by the providers' own SDKs, ``*_API_BASE`` by LiteLLM and older clients, some
by LangChain. Each takes another part of an address, so that each has the path that its readers expect at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Provider(NamedTuple):
    """A provider that a program may call through the guard."""

    name: str
    """The name of its upstream."""
    url: str | None
    """Its address, as an upstream has it; None where everybody has another one."""
    keys: tuple[str, ...]
    """Variables of its key, the usual one first."""
    addresses: Mapping[str, str]
    """Variables of its address, and the path that each has at its end."""
    only_if_named: bool = False
    """Whether its variables tell a program to use it, so that they are set only where they were set before."""


PROVIDERS = (
    Provider(
        "openai",
        "https://api.openai.com",
        ("OPENAI_API_KEY", "OPENAI_KEY"),
        {"OPENAI_BASE_URL": "/v1", "OPENAI_API_BASE": "/v1"},
    ),
    Provider(
        "anthropic",
        "https://api.anthropic.com",
        ("ANTHROPIC_API_KEY", "ANTHROPIC_KEY", "CLAUDE_API_KEY"),
        {"ANTHROPIC_BASE_URL": "", "ANTHROPIC_API_URL": "", "ANTHROPIC_API_BASE": ""},
    ),
    Provider(
        "google",
        "https://generativelanguage.googleapis.com",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"),
        {"GOOGLE_GEMINI_BASE_URL": "", "GEMINI_API_BASE": ""},
    ),
    Provider(
        "groq",
        "https://api.groq.com",
        ("GROQ_API_KEY",),
        {"GROQ_BASE_URL": "", "GROQ_API_BASE": "/openai/v1"},
    ),
    Provider(
        "mistral",
        "https://api.mistral.ai",
        ("MISTRAL_API_KEY",),
        {"MISTRAL_BASE_URL": "/v1", "MISTRAL_API_BASE": "/v1", "MISTRAL_AZURE_API_BASE": "/v1"},
    ),
    Provider(
        "openrouter",
        "https://openrouter.ai/api",
        ("OPENROUTER_API_KEY", "OPENROUTER_KEY"),
        {"OPENROUTER_BASE_URL": "/v1", "OPENROUTER_API_BASE": "/v1"},
    ),
    Provider(
        "deepseek",
        "https://api.deepseek.com",
        ("DEEPSEEK_API_KEY",),
        {"DEEPSEEK_BASE_URL": "/v1", "DEEPSEEK_API_BASE": "/v1"},
    ),
    Provider(
        "xai",
        "https://api.x.ai",
        ("XAI_API_KEY",),
        {"XAI_BASE_URL": "/v1", "XAI_API_BASE": "/v1"},
    ),
    Provider(
        "together",
        "https://api.together.xyz",
        ("TOGETHER_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_AI_TOKEN"),
        {"TOGETHER_BASE_URL": "/v1", "TOGETHER_API_BASE": "/v1", "TOGETHER_AI_API_BASE": "/v1"},
    ),
    Provider(
        "fireworks",
        "https://api.fireworks.ai/inference",
        ("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKS_AI_TOKEN"),
        {"FIREWORKS_BASE_URL": "/v1", "FIREWORKS_API_BASE": "/v1", "FIREWORKS_AI_API_BASE": "/v1"},
    ),
    Provider(
        "cohere",
        "https://api.cohere.com",
        ("CO_API_KEY", "COHERE_API_KEY"),
        {"CO_API_URL": ""},
    ),
    Provider(
        "cerebras",
        "https://api.cerebras.ai",
        ("CEREBRAS_API_KEY",),
        {"CEREBRAS_BASE_URL": "", "CEREBRAS_API_BASE": "/v1"},
    ),
    Provider(
        "perplexity",
        "https://api.perplexity.ai",
        ("PERPLEXITY_API_KEY", "PPLX_API_KEY", "PERPLEXITYAI_API_KEY"),
        {"PERPLEXITY_BASE_URL": "", "PERPLEXITY_API_BASE": ""},
    ),
    Provider(
        "azure",
        None,
        ("AZURE_OPENAI_API_KEY", "AZURE_API_KEY", "AZURE_OPENAI_KEY"),
        {"AZURE_OPENAI_ENDPOINT": "", "AZURE_API_BASE": ""},
        only_if_named=True,  # openai's module asks for one of both where it finds the variables of both
    ),
    Provider(
        "aws",
        None,
        ("AWS_BEARER_TOKEN_BEDROCK",),
        {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": ""},
    ),
    Provider("vertex", None, (), {"GOOGLE_VERTEX_BASE_URL": ""}),
)
"""Those whose clients read an address from the environment, the best known first."""

ALIASES = {"gemini": "google", "bedrock": "aws", "x-ai": "xai", "azure-openai": "azure"}
"""Other names under which ``--upstream`` finds them."""

OTHER_KEYS = frozenset(
    "AI21_API_KEY ALEPH_ALPHA_API_KEY ANTHROPIC_AUTH_TOKEN ANYSCALE_API_KEY ASSEMBLYAI_API_KEY AZURE_AI_API_KEY "
    "AZURE_OPENAI_AD_TOKEN BASETEN_API_KEY CLARIFAI_API_KEY CLARIFAI_PAT DASHSCOPE_API_KEY DEEPGRAM_API_KEY "
    "DEEPINFRA_API_KEY DEEPINFRA_API_TOKEN ELEVENLABS_API_KEY ELEVEN_API_KEY FAL_KEY FEATHERLESS_AI_API_KEY "
    "FRIENDLI_TOKEN GALADRIEL_API_KEY HF_API_KEY HF_TOKEN HUGGINGFACEHUB_API_TOKEN HUGGINGFACE_API_KEY "
    "HUGGING_FACE_HUB_TOKEN HYPERBOLIC_API_KEY INFERMATIC_API_KEY INFINITY_API_KEY JINA_API_KEY LAMBDA_API_KEY "
    "LEPTONAI_API_KEY LITELLM_API_KEY LITELLM_PROXY_API_KEY MINIMAX_API_KEY MOONSHOT_API_KEY NEBIUS_API_KEY "
    "NLP_CLOUD_API_KEY NOVITA_API_KEY NSCALE_API_KEY NVIDIA_API_KEY NVIDIA_NIM_API_KEY OCTOAI_TOKEN OPENAI_ADMIN_KEY "
    "PREDIBASE_API_KEY QWEN_API_KEY REKA_API_KEY REPLICATE_API_KEY REPLICATE_API_TOKEN SAMBANOVA_API_KEY "
    "SILICONFLOW_API_KEY STABILITY_API_KEY UPSTAGE_API_KEY VERTEX_API_KEY VOLCENGINE_API_KEY VOYAGE_API_KEY "
    "WATSONX_APIKEY WATSONX_API_KEY WRITER_API_KEY ZAI_API_KEY ZHIPUAI_API_KEY".split()
)
"""Keys of providers whose clients find no address in the environment, so that calls with them could not be held."""
