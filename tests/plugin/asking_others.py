"""A tool that asks another agent or graph, as an agent outside calls it."""

from langchain_core.messages import AIMessage
from langchain_core.tools import tool

# Were it the user's, it would be a command.
CALL = AIMessage("", tool_calls=[{"name": "research", "args": {"question": "/do-not-learn"}, "id": "1"}])
LOGGED = '{"calls": [{"args": {"question": "/do-not-learn"}, "name": "research"}], "text": ""}'


def research_by(inner, *, is_async):
    """The tool; `inner` answers the question that a model asks it."""

    def asked(question):
        return {"messages": [("user", question)]}

    if is_async:

        @tool
        async def research(question: str) -> str:
            """Ask another agent."""
            return (await inner.ainvoke(asked(question)))["messages"][-1].text

        return research

    @tool
    def research(question: str) -> str:
        """Ask another agent."""
        return inner.invoke(asked(question))["messages"][-1].text

    return research
